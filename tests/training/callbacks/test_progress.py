import os
import pty
import re
import subprocess
import sys

import pytest

from lit_t6.training import TrainingProgress


def test_lines_where_there_is_no_terminal(options, capsys):
    from lit_t6.cli import run

    words = [word for word in options if "enable_progress_bar" not in word]
    run(["fit", *words])
    out = capsys.readouterr().out
    assert re.search(r"step 1 of 3  loss \d\.\d{4}", out)
    assert len(re.findall("^step ", out, re.M)) == 1  # the next line would come after half a minute
    assert "│ attention" in out
    assert "TPA (6, 2, 2)" in out
    figures, best, following = out.splitlines()[-3:]
    assert re.fullmatch(r"val/loss \d\.\d{4}, \d\.\d{4} bits per byte", figures)
    assert re.fullmatch(r"Best val/loss \d\.\d{4}: .*/step=3.ckpt", best)
    assert re.fullmatch(r"Next: python cli.py generate --ckpt_path .*/last.ckpt --prompt 'It was'", following)


def test_the_last_lines_stand_alone_where_none_is_the_best(options, capsys):
    from lit_t6.cli import run

    run(["fit", *options, "--checkpoint.monitor=null"])
    figures, following = capsys.readouterr().out.splitlines()[-2:]
    assert re.fullmatch(r"val/loss \d\.\d{4}, \d\.\d{4} bits per byte", figures)
    assert following.startswith("Next: python cli.py generate --ckpt_path ")


def test_a_bar_in_a_terminal(options):
    words = [word for word in options if "enable_progress_bar" not in word] + ["--data.eval_batch_size=1"]
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "150", "TERM": "xterm"}
    command = [sys.executable, "-W", "ignore", "cli.py", "fit", *words]
    process = subprocess.Popen(command, stdout=child, stderr=child, env=environment)
    os.close(child)
    output = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # the terminal is closed
            break
        if not piece:
            break
        output += piece
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode())
    assert re.search(r"training .*3/3 +loss \d\.\d{4} .*tokens/s", text), text[-2000:]
    assert re.search(r"validation .*\d/\d", text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(30, "under a minute left"), (150, "2 min left"), (7500, "2 h 5 min left")]
)
def test_time_left(seconds, text, monkeypatch):
    from lit_t6.training.callbacks import progress

    bar = TrainingProgress()
    bar._first = (0.0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: 10.0)
    assert bar._time_left(20, 20 + seconds).endswith(text)

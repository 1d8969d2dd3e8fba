import subprocess
import sys

from lit_t6.training import Guards
from lit_t6.training.callbacks.step_notes import StepNotes

from .guarded import run

SHORT = """
import resource, signal, sys
from pathlib import Path
from lit_t6.training.callbacks.step_notes import StepNotes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
notes = StepNotes(Path(sys.argv[1]))
for step in (1, 2):
    notes.add({"step": step})
size = notes.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, size + 5))
notes.add({"step": 3})
resource.setrlimit(resource.RLIMIT_FSIZE, (3, size + 5))
notes.forget_after(1)
"""


def test_notes_that_cannot_be_written_cost_one_warning(tmp_path, prepared, capsys):
    """A file that takes no more bytes: /dev/full is a disk that is."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "guards.jsonl").symlink_to("/dev/full")
    run(tmp_path, prepared, Guards("skip"), {3, 6})
    errors = capsys.readouterr().err
    assert errors.count("guards.jsonl: notes about steps are lost: No space left on device. Training goes on.") == 1


def test_notes_are_whole_lines_whatever_the_disk_takes(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", SHORT, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.count("warning: ") == 1
    assert "guards.jsonl: notes about steps are lost: File too large" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["guards.jsonl"]
    path = tmp_path / "guards.jsonl"
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'  # not half of the third, nor half of the first alone
    path.write_text('{"step": 1}\n{"step"{"step": 2}\n{"st')  # what others left
    StepNotes(tmp_path).forget_after(2)
    assert path.read_text() == '{"step": 1}\n'

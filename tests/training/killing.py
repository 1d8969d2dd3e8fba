"""Runs `python cli.py fit` again and again, and sends it a signal each time, until it has finished."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass
class Killed:
    """What became of a run.

    Args:
        kills: how often a signal ended it.
        cut: how many of the kills came in the middle of a save: they left a half-written file.
        steps: optimizer steps of the last checkpoint at each kill.
        codes: exit statuses, the last one included.
        output: what each process printed.
    """

    kills: int = 0
    cut: int = 0
    steps: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    output: list[str] = field(default_factory=list)


def fit_words(prepared, save_dir, *more, max_steps=200):
    """A command that takes seconds: a tiny model, saved every second step, and every third to go on from."""
    return [
        "--config=configs/quickstart.yaml",
        f"--data.path={prepared}",
        "--data.batch_size=2",
        "--data.eval_windows=4",
        "--data.eval_batch_size=4",
        "--model.vocab_size=400",
        "--model.max_seq_len=16",
        "--model.d_model=16",
        "--model.num_layers=1",
        "--model.attention.num_heads=2",
        "--model.attention.head_dim=4",
        "--model.optimizer.warmup_steps=10",
        f"--trainer.max_steps={max_steps}",
        "--trainer.val_check_interval=50",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--samples.max_new_tokens=0",
        "--checkpoint.monitor=null",
        "--checkpoint.every_n_train_steps=2",
        "--resume.every_n_steps=3",
        f"--trainer.logger.init_args.save_dir={save_dir}",
        *more,
    ]


def start(words):
    """The command in a process group of its own, ranks that it starts among it."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "cli.py", "fit", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # sums are the same whatever else the machine does
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_and_kill(
    words, save_dir, kills, *, seed=0, number=signal.SIGKILL, saves=(1, 5), aim=0, victim=None, patience=120.0
):
    """Run a command to its end, killing it `kills` times at random moments.

    Args:
        words: options of `fit`; the same each time.
        save_dir: where its checkpoints appear, in some folder below.
        kills: signals to send, as long as the run is not finished.
        seed: of the moments.
        number: the signal.
        saves: fewest and most checkpoints that are written in a process before it is killed.
        aim: every so many kills, one is sent as soon as a save is seen at work; 0 for none.
        victim: picks the process id to be killed, given the process and a random.Random; by default the whole group.
        patience: seconds that a process may take to write its checkpoints, and to end after the signal.
    """
    chance, done = random.Random(seed), Killed()
    while True:
        process, before = start(words), _half_written(Path(save_dir))
        at_work = aim > 0 and done.kills % aim == aim - 1
        killed = done.kills < kills and _kill(process, Path(save_dir), chance, number, saves, at_work, victim, patience)
        output, _ = process.communicate(timeout=patience)
        done.output.append(output)
        done.codes.append(process.returncode)
        if killed and process.returncode:  # else the signal came after the last step: it has finished
            done.kills += 1
            done.cut += bool(_half_written(Path(save_dir)) - before)
            done.steps.append(_last_step(Path(save_dir)))
            continue
        return done


def _kill(process, folder, chance, number, saves, at_work, victim, patience):
    """Send the signal after some checkpoints and a moment, or a save at work; false if the process ended before."""
    wanted, moment, until = chance.randint(*saves), chance.uniform(0, 0.04), time.monotonic() + patience
    before, seen = _stamp(folder), 0
    while seen < wanted:
        if process.poll() is not None:
            return False
        assert time.monotonic() < until, "no checkpoint appears"
        now = _stamp(folder)
        seen, before = seen + (now != before), now
        time.sleep(0.002)
    if at_work:
        folders, left = {path.parent for path in _times(folder)}, _half_written(folder)
        while {Path(at, name) for at in folders for name in os.listdir(at) if name.endswith(".tmp")} <= left:
            if process.poll() is not None:  # without a pause: a save takes milliseconds
                return False
            assert time.monotonic() < until, "no save is seen"
    else:
        time.sleep(moment)
    if process.poll() is not None:
        return False
    if victim is not None:
        os.kill(victim(process, chance), number)
    elif number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return True


def _stamp(folder):
    return max(_times(folder).values(), default=0)


def _lasts(folder):
    return list(folder.glob("**/last*.ckpt"))


def _times(folder):
    """When each file was written that a run may go on from; some come and go meanwhile."""
    times = {}
    for path in (*_lasts(folder), *folder.glob("**/resume/*.ckpt")):
        with contextlib.suppress(FileNotFoundError):
            times[path] = path.stat().st_mtime_ns
    return times


def _half_written(folder):
    return set(folder.glob("**/.*.ckpt.*.tmp"))


def _last_step(folder):
    times = _times(folder)
    if not times:
        return 0
    try:
        return int(torch.load(max(times, key=times.get), weights_only=True, mmap=True)["global_step"])
    except (RuntimeError, OSError, EOFError):  # killed while it was written
        return -1


def went_on_after(killed):
    """The steps that the processes after the first went on after, as they said."""
    return [
        int(step.replace(",", "")) for text in killed.output for step in re.findall(r"after step ([\d,]+): the", text)
    ]


def final_state(folder):
    """Weights and optimizer of the last checkpoint of the one run below a folder."""
    (last,) = _lasts(Path(folder))
    content = torch.load(last, weights_only=True)
    return {name: content[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")}

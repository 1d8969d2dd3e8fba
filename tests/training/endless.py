"""Trainings in processes of their own, to send signals to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NEVER = 10**6
WORDS = [
    f"--trainer.max_steps={NEVER}",
    f"--trainer.val_check_interval={NEVER}",
    "--trainer.enable_progress_bar=true",
    "--data.eval_windows=2",
    "--samples.max_new_tokens=0",
    "--diagnostics.every_n_validations=0",
]


def processes_with(word):
    """Ids of the processes with a word in their command line, zombies aside: of a run, and of its loaders."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


def other_ranks(first, word):
    """Ids of the processes that one has started for other devices.

    Args:
        first: its own id.
        word: in the command lines of all of them.
    """
    return [pid for pid in processes_with(word) if _rank(pid) not in (None, "0") and _parent(pid) == first]


def wait_for(condition, seconds=120):
    """Poll until a condition holds; whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Endless:
    """`fit` in a session of its own, with all that it prints in a file.

    Args:
        options: of the command line; they must name `tmp_path`.
        tmp_path: a folder of the test's own, by which the processes are recognised.
        *more: options.
        **environment: variables.
    """

    def __init__(self, options, tmp_path, *more, **environment):
        self.tmp_path, self.words = tmp_path, [*options, *WORDS, *more]
        self.output = tmp_path / f"output-{time.monotonic_ns()}.txt"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-W", "ignore", "cli.py", "fit", *self.words],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def pids(self):
        return processes_with(str(self.tmp_path))

    def said(self):
        return self.output.read_text()

    def wait_for_step(self):
        """Until the progress bar tells of a step."""
        assert self.wait_for_text("\nstep "), self.said()

    def wait_for_text(self, text):
        wait_for(lambda: text in self.said() or self.process.poll() is not None)
        return text in self.said()

    def others(self):
        """Ids of the processes that it started for other devices."""
        return other_ranks(self.process.pid, str(self.tmp_path))

    def status(self, seconds=120):
        """How it ended; nothing of it is left then, not even for a moment longer than its loaders need to notice."""
        status = self.process.wait(seconds)
        assert wait_for(lambda: not self.pids(), 20), self.pids()
        return status

    def folder(self):
        (saved,) = self.tmp_path.glob("**/last.ckpt")
        return saved.parent.parent

    def saved_step(self):
        """The step that it said it saved after."""
        return int(self.said().split("after step ")[-1].split(";")[0].replace(",", ""))

    def end_after(self, step):
        """Options with which the same command ends, for a test that waits for it."""
        config = self.folder() / "config.yaml"
        config.write_text(config.read_text().replace(f"max_steps: {NEVER}", f"max_steps: {step}"))
        return [*self.words, f"--trainer.max_steps={step}"]


def _rank(pid):
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((v.decode().split("=")[1] for v in variables if v.startswith(b"LOCAL_RANK=")), None)


def _parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None

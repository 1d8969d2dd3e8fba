"""`cli.py sweep run` in processes of its own, on trainings that take seconds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lit_t6.sweeps.records import read_record

QUICKSTART = str(Path("configs/quickstart.yaml").resolve())
ROOT = Path(__file__).parents[2]


def study_file(folder, prepared, name="study", options=None, **settings):
    """A study of a tiny model on the test's text; `settings` over these.

    Args:
        folder: for the file.
        prepared: data.
        name: of the study.
        options: of `fit`, over those here.
        settings: of the study.
    """
    small = {
        "data.path": str(prepared),
        "model.vocab_size": 400,
        "model.max_seq_len": 32,
        "model.d_model": 64,
        "model.num_layers": 1,
        "model.attention.head_dim": 8,
        "model.optimizer.warmup_steps": 2,
        "data.batch_size": 4,
        "data.eval_batch_size": 4,
        "data.eval_windows": 8,
        "samples.max_new_tokens": 0,
        "diagnostics.every_n_validations": 0,
        "trainer.max_steps": 12,
        "trainer.val_check_interval": 4,
        "trainer.log_every_n_steps": 2,
        "resume.every_n_steps": 3,
        **(options or {}),
    }
    path = Path(folder) / f"{name}.yaml"
    path.write_text(json.dumps({"configs": [QUICKSTART], "options": small, "seeds": [0], **settings}))
    return path


def environment(**variables):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", **variables}


class Sweep:
    """`cli.py sweep run` under way, its output in a file.

    Args:
        words: of the command line.
        folder: for its output.
        **variables: of its environment.
    """

    def __init__(self, words, folder, **variables):
        self.output = Path(folder) / f"output-{time.monotonic_ns()}.txt"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "cli.py", "sweep", "run", *map(str, words)],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(**variables),
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in [*self.descendants(), self.process.pid]:
            kill(pid, signal.SIGKILL)
        self.process.wait()

    def said(self):
        return self.output.read_text()

    def status(self, seconds=240):
        return self.process.wait(seconds)

    def descendants(self):
        """Process ids of workers, trainings and what these started."""
        found, parents = [], [self.process.pid]
        while parents:
            parents = [pid for parent in parents for pid in children(parent)]
            found += parents
        return found

    def workers(self):
        return [pid for pid in children(self.process.pid) if b"lit_t6.sweeps.worker" in words_of(pid)]

    def trainings(self):
        return [pid for worker in self.workers() for pid in children(worker) if b"fit" in words_of(pid).split(b"\0")]

    def kill_coordinator(self):
        """Kill it, and see all that it started die with it."""
        family = self.descendants()
        assert self.process.poll() is None, self.said()
        self.process.kill()
        self.process.wait()
        until = time.monotonic() + 10
        while any(map(lives, family)):
            assert time.monotonic() < until, [words_of(pid) for pid in family if lives(pid)]
            time.sleep(0.02)


def sweep(words, folder, **variables):
    """Run it to its end: its status, and what it said."""
    with Sweep(words, folder, **variables) as running:
        status = running.status()
        return status, running.said()


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def words_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def records(folder):
    """The records of all trials of a study, by their jobs."""
    return {str(path.parent.relative_to(folder)): read_record(path.parent) for path in Path(folder).rglob("trial.json")}


def losses(folder):
    """What must not depend on how a study went: outcomes, steps and figures, without those of time and memory."""
    return {
        job: (record["outcome"], record["step"], {k: v for k, v in record["metrics"].items() if k.startswith("val/")})
        for job, record in records(folder).items()
    }

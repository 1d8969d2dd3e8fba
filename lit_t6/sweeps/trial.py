"""A trial as a process: started, listened to, stopped, and what became of it."""

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lit_t6.sweeps import tether
from lit_t6.sweeps.presence import boot_id, start_of
from lit_t6.sweeps.records import read_metrics
from lit_t6.sweeps.said import DIVERGED, OUT_OF_MEMORY, SAVED, last_error, tail, with_step
from lit_t6.training.run_lock import is_held
from lit_t6.whole_files import replace_text

OUTPUT = "output.log"
"""What the trainings of a trial print, all attempts one after the other."""
FINISHED = "finished"
EXIT_SAVED = 75
_PROCESS = "process.json"
STOP_SECONDS = 90.0
"""How long a training may take to finish its step and save, when it is asked to stop; at most its time limit."""
_TAKEN = "in this folder; wait for it, or stop it"
_OF_ANOTHER_LAUNCH = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OF_ANOTHER_RUN = ("LIT_T6_LAUNCHER", "LIT_T6_TAKEN_OVER")


@dataclass
class Ended:
    """What became of a training.

    Args:
        outcome: completed, pruned, one of REASONS, interrupted; or "taken": another process works in the folder.
        reason: why, in a line; empty where it completed.
        found: what it wrote last: its step, metrics and facts.
        remark: what a person should know of one that completed, in a line; empty for nothing.
        is_final: whether trying it again would end the same way, whatever the study says.
    """

    outcome: str
    reason: str = ""
    found: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""
    is_final: bool = False


class TrialProcess:
    """The process of a trial.

    It dies with the thread that made it. What it prints goes to output.log in its folder.

    Args:
        command: its words.
        folder: of the trial.
        settings: what `ReportToStudy` is to know.
        environment: variables over those of this process.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.started = folder, time.time()
        self._output, self._run = folder / OUTPUT, settings.get("run")
        self._kills = _kernel_kills()
        with self._output.open("ab", buffering=0) as output:
            output.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')}: {' '.join(command)}\n".encode())
            self._from = output.tell()
            mine, theirs = socket.socketpair()
            with theirs:
                told = json.dumps({**settings, "descriptor": theirs.fileno()})
                self.process = subprocess.Popen(
                    tether.words([*command]),
                    env={**_clean(os.environ), "PYTHONUNBUFFERED": "1", **environment, "LIT_T6_TRIAL": told},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        self._socket, self._received = mine, b""
        self._asked_at: float | None = None
        self.stop_seconds = STOP_SECONDS
        self.why_asked = ""
        with suppress(OSError):  # the lock tells it too, and a disk may be full
            who = {"pid": self.process.pid, "boot": boot_id(), "start": start_of(self.process.pid)}
            replace_text(folder / _PROCESS, json.dumps(who))

    def listen(self, seconds: float) -> list[dict[str, Any]]:
        """What it has said, waiting at most so long for something, or for its end."""
        try:
            descriptor = os.pidfd_open(self.process.pid)
        except (OSError, AttributeError):  # it has ended, or this system has none
            descriptor = None
        watched: list[Any] = [] if descriptor is None else [descriptor]
        if self._socket is not None:
            watched.append(self._socket)
        try:
            ready = select.select(watched, [], [], 0 if self.has_ended() else seconds)[0]
        finally:
            if descriptor is not None:
                os.close(descriptor)
        if self._socket in ready:
            with suppress(OSError):
                received = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
                self._received += received
                if not received:  # it closed its end
                    self._socket.close()
                    self._socket = None  # type: ignore[assignment]
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    def answer(self, word: str) -> None:
        """Answer a report."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendall(word.encode() + b"\n")

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def ask_to_stop(self, why: str) -> None:
        """Have it finish its step, save and end; asked again, kill it once it had time for that.

        Args:
            why: "interrupted" or "timed_out".
        """
        if self._asked_at is None:
            self._asked_at, self.why_asked = time.monotonic(), why
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        elif time.monotonic() - self._asked_at > self.stop_seconds:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it at once if it has not ended, and what it started: its loaders may live a moment longer."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self._socket is not None:
            self._socket.close()

    def outcome(self, metric: str, pruned_at: int | None) -> Ended:
        """What became of it, now that it has ended.

        Args:
            metric: of the objective.
            pruned_at: the step at which it was told to stop for good, if it was.
        """
        status = self.process.returncode
        found = read_metrics(self.folder) or {}
        finished = (self.folder / FINISHED).exists()
        if status == 0:
            # The pruner's word comes too late for a training that is at its end.
            return ended_well(found, metric, None if finished else pruned_at)
        if finished and found.get("run") == self._run:  # as does whatever befell its process after
            ended = ended_well(found, metric, None)
            if ended.outcome != "failed":
                after = "" if self.why_asked else f"it finished; after that {self._failed(status, found).reason}"
                return replace(ended, remark="; ".join(filter(None, [ended.remark, after])))
        if status == EXIT_SAVED or self.why_asked:
            saved = with_step(found, SAVED, tail(self._output, self._from))
            if self.why_asked == "timed_out":
                return Ended("timed_out", "it took longer than its time limit", saved)
            return Ended("interrupted", "it was stopped", saved)
        return self._failed(status, found)

    def _failed(self, status: int, found: Mapping[str, Any]) -> Ended:
        text = tail(self._output, self._from)
        said = last_error(text)
        if _TAKEN in text:
            return Ended("taken", said)
        if OUT_OF_MEMORY.search(text):
            return Ended("out_of_memory", said, found)
        if DIVERGED.search(text):
            return Ended("diverged", said, with_step(found, DIVERGED, text))
        number = -status if status < 0 else status - 128
        if status < 0 and _kernel_kills() > self._kills:
            return Ended("out_of_memory", "the kernel killed it: this machine's memory was full", found)
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            return Ended("lost", f"somebody sent it {signal.Signals(number).name}", found)
        died = f"it died of {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"
        return Ended("failed", said or f"{died} and said nothing", found)


def ended_well(found: Mapping[str, Any], metric: str, pruned_at: int | None) -> Ended:
    """What a training came to that ended with status 0.

    Args:
        found: what it wrote last.
        metric: of the objective.
        pruned_at: the step at which it was told to stop for good, if it was.
    """
    if pruned_at is not None:
        return Ended("pruned", f"pruned at step {pruned_at:,}", found)
    metrics = found.get("metrics") or {}
    if not found.get("ended") or metric not in metrics:
        there = f" It logged {', '.join(metrics)}." if metrics else ""
        is_final = bool(found.get("ended") and metrics)  # it is not among those that are logged
        return Ended("failed", f"it ended without the figure that decides, {metric}.{there}", found, is_final=is_final)
    if metrics[metric] is None:
        return Ended("diverged", f"{metric} is not a finite number at the end", found)
    missing = ", ".join(found.get("not_saved") or [])
    return Ended("completed", "", found, f"checkpoints not saved: {missing}; {OUTPUT} says why" if missing else "")


def finished_before(folder: Path, metric: str, judged: Collection[str]) -> Ended | None:
    """What a training came to that an earlier attempt finished, but could not record; None if none did.

    Args:
        folder: of the trial.
        metric: of the objective.
        judged: runs of this trial that came to nothing, as the storage says: what they left is no result.
    """
    if not (folder / FINISHED).exists() or not (found := read_metrics(folder)):
        return None
    run = found.get("run")
    if run in judged or (run is None and judged):  # earlier versions did not say which it was
        return None
    ended = ended_well(found, metric, None)
    return None if ended.outcome == "failed" else ended


def set_aside(folder: Path) -> Path | None:
    """Make way for a run from the start, where a folder holds one that is finished; says where that is kept then.

    `fit` goes on with what is unfinished, and would have nothing to do for one that is at its end.

    Args:
        folder: of the trial; nobody is at work in it.

    Raises:
        OSError: it cannot be renamed.
    """
    if not (folder / FINISHED).exists():
        return None
    names = (folder.with_name(f"{folder.name}.attempt-{number}") for number in itertools.count(1))
    return folder.rename(next(path for path in names if not path.exists()))


def end_others(folder: Path) -> bool:
    """End what an earlier attempt has left at work in the folder; false if somebody is there that cannot be ended.

    Its worker may have been stopped, and its training not; on another machine it can only be waited for.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        who = json.loads((folder / _PROCESS).read_text())
        if who["boot"] == boot_id() and who["start"] and start_of(who["pid"]) == who["start"]:
            with suppress(ProcessLookupError):
                os.killpg(who["pid"], signal.SIGKILL)
            until = time.monotonic() + 10
            while start_of(who["pid"]) == who["start"] and time.monotonic() < until:
                time.sleep(0.02)
    return not is_held(folder)


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of a training of its own: not those by which a launcher tells ranks from each other."""
    left = {key: value for key, value in environment.items() if key not in (*_OF_ANOTHER_LAUNCH, *_OF_ANOTHER_RUN)}
    if "SLURM_JOB_ID" in left:
        left["SLURM_JOB_NAME"] = "interactive"  # Lightning: the ranks are not SLURM's
    return left


def _kernel_kills() -> int:
    """How many processes of this machine the kernel has killed for want of memory, its own or a container's."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("oom_kill ")))
    return 0

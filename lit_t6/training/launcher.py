"""Processes for several devices that end together: if one dies, none is left behind."""

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import lightning as L
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn

from lit_t6.training.callbacks.interrupt import EXIT_SAVED
from lit_t6.training.memory import is_out_of_memory

_LAUNCHER = "LIT_T6_LAUNCHER"
"""Process id of the one that started the others; children are told by it."""
_POLL_SECONDS = 0.5
_CAUSE_SECONDS = 5.0
"""How long an error waits for the news that another process died, which explains it."""
_FAILED_SECONDS = 5.0
_FINISHED_SECONDS = 60.0
_LAST_WORDS_SECONDS = 2.0
"""How long the end waits for its line to be printed: a pipe may be full, and its reader gone to sleep."""


def watch_processes(trainer: L.Trainer) -> None:
    """Where Lightning starts processes for other devices, let them end together; leave other launchers alone."""
    strategy, launcher = trainer.strategy, trainer.strategy.launcher
    if isinstance(strategy, ParallelStrategy) and type(launcher) is _SubprocessScriptLauncher:
        strategy._launcher = WatchedLauncher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)


class WatchedLauncher(_SubprocessScriptLauncher):
    """Starts a process for each device, as Lightning's own launcher does, and sees to it that all end together.

    Each side watches the other from a thread, since a process whose peer is gone can wait in a collective for as long
    as its timeout, half an hour. The first process ends all when another died, and waits for the others at its own end;
    the others end when the first is gone. Either prints one line. Lightning's launcher kills itself instead, without a
    word, also when the others have ended in order with a status other than 0.

    Processes that something else started (torchrun, SLURM) are watched by that.
    """

    _failed = False
    _launcher_pid: int | None = None

    def launch(self, function: Callable[..., Any], *args: Any, trainer: L.Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes, unless this is one of them, and run `function`."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        self._done = threading.Event()
        fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        self._advice = " The same command goes on from the last checkpoint." if fits else ""
        launcher = os.environ.get(_LAUNCHER)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[_LAUNCHER] = str(os.getpid())
            self._call_children_scripts()
            atexit.register(self._wait_for_children)
            self._watch(self._check_children)
        elif launcher is not None and launcher != str(os.getpid()):
            self._launcher_pid = int(launcher)
            self._watch(self._check_launcher)
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            self._failed = not (isinstance(error, SystemExit) and error.code == EXIT_SAVED)
            if isinstance(error, RuntimeError) and not is_out_of_memory(error) and self.num_processes > 1:
                time.sleep(_CAUSE_SECONDS)  # if a peer's death is behind it, the watcher ends this process meanwhile
            if self._launcher_pid is None or not self._failed:
                self._done.set()  # one of the others, failing, may yet hang: it watches the first to its end
            raise
        self._done.set()
        return result

    def _watch(self, check: Callable[[], None]) -> None:
        def run() -> None:
            while not self._done.wait(_POLL_SECONDS):
                check()

        threading.Thread(target=run, daemon=True, name="peers").start()

    def _check_children(self) -> None:
        for rank, process in enumerate(self.procs, 1 + self.cluster_environment.node_rank() * self.num_processes):
            status = process.poll()
            if status not in (None, 0, EXIT_SAVED) and not self._done.is_set():
                self.kill(signal.SIGKILL)
                for other in self.procs:
                    other.wait()
                how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
                _end(f"rank {rank} (process {process.pid}) {how}; the others are stopped.{self._advice}", status)

    def _check_launcher(self) -> None:
        if os.getppid() != self._launcher_pid:
            message = f"the first process ({self._launcher_pid}) is gone; the others are stopped.{self._advice}"
            _end(message if self.cluster_environment.local_rank() == 1 else "", 1)

    def _wait_for_children(self) -> None:
        """At the end of this process, however it came."""
        deadline = time.monotonic() + (_FAILED_SECONDS if self._failed else _FINISHED_SECONDS)
        for process in self.procs:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end(message: str, status: int) -> None:
    """End this process from a thread, whatever the others of its threads wait for.

    Args:
        message: one line; none if empty.
        status: of the process that died. Signals that ask to stop give 128 + their number, all else gives 1.
    """
    status = 128 - status if status < 0 else status
    asked = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        speaker = threading.Thread(target=_say, args=(message,), daemon=True)
        speaker.start()
        speaker.join(_LAST_WORDS_SECONDS)
    finally:
        os._exit(status if status in asked else 1)


def _say(message: str) -> None:
    """Print a line of error, if there is one, and what has been printed before."""
    if message:
        with suppress(OSError):
            os.write(2, f"\nerror: {message}\n".encode())
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a reader that is gone, a stream that is closed
            stream.flush()

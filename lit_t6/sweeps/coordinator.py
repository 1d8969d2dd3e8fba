"""Has the workers of this machine see a study to its end: starts them, replaces those that die, tells how it stands."""

import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from lit_t6.sweeps import tether
from lit_t6.sweeps.ledger import Ledger
from lit_t6.sweeps.presence import WORKERS, is_unheld
from lit_t6.sweeps.screen import Screen
from lit_t6.sweeps.status import Events, Overview, at_now, overview
from lit_t6.sweeps.storage import Flag, is_out_of_reach, reason
from lit_t6.sweeps.worker import IDLE_SECONDS, Plan

_LOOK_SECONDS = 1.0
_SETTLED_SECONDS = 60.0
_DEATHS = 5
"""Deaths of a worker, each within `_SETTLED_SECONDS` of its start, after which no other is started."""
_PAUSE = 2 * IDLE_SECONDS
"""Before the first trial of a worker in the place of a dead one. What that was at is for another one, if one is idle:
what killed it on this GPU may do so again."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Process:
    """A worker's process."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.deaths = plan, 0
        self.start()

    def start(self) -> None:
        """Start it, again or for the first time. It dies with this process."""
        self.started, self.said = time.monotonic(), b""
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            tether.words([sys.executable, "-m", "lit_t6.sweeps.worker"]),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the coordinator alone
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(pickle.dumps(replace(self.plan, pause=_PAUSE if self.deaths else 0.0)))
            self.process.stdin.close()

    def lines(self) -> list[str]:
        """What it has said since, whole lines."""
        assert self.process.stdout is not None
        self.said += os.read(self.process.stdout.fileno(), 1 << 16)
        *whole, self.said = self.said.split(b"\n")
        return [line.decode(errors="replace") for line in whole]


class Coordinator:
    """Runs a study on this machine, beside others that do so elsewhere.

    Args:
        plan: of every worker, but for its number and environment.
        ledger: of the study.
        environments: variables of each worker's trainings.
        screen: where it is told.
    """

    def __init__(self, plan: Plan, ledger: Ledger, environments: Sequence[Mapping[str, str]], screen: Screen) -> None:
        self.ledger, self.screen = ledger, screen
        self._plans = [replace(plan, number=n, environment=env) for n, env in enumerate(environments)]
        self._folder = plan.folder
        self._processes: list[_Process] = []
        self._selector = selectors.DefaultSelector()
        self._stopping = Flag()
        self._signals = 0
        self._gave_up = ""
        self._complained, self._failed_at = False, float("-inf")

    def run(self) -> Overview:
        """See the study to its end, or to a signal: then every training saves, and ends.

        Returns:
            How the study stands.

        Raises:
            ValueError: the workers cannot work.
            SystemExit: a second signal, with 128 + its number.
        """
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # not those of nohup
        before = {number: signal.signal(number, self._note) for number in heard}
        events = Events()
        try:
            stands = self._look(None)
            events.since(stands)
            for plan in self._plans:
                self._add(_Process(plan))
            while self._processes:
                self._listen()
                self._replace_the_dead()
                stands = self._look(stands)
                for line in events.since(stands):
                    self.screen.say(line)
                self.screen.show(stands)
        except SystemExit:
            self.screen.say("Stopped at once; the same command goes on from what was saved.")
            raise
        finally:
            for worker in self._processes:
                worker.process.kill()  # and with it its training
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._gave_up:
            raise ValueError(self._gave_up)
        self._sweep_out()
        return stands

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it."""
        return self._signals > 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1 and number == signal.SIGINT:
            for worker in self._processes:
                worker.process.kill()
            raise SystemExit(128 + number)
        self._stopping.set()
        for worker in self._processes:
            with suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        if self._signals == 1:
            self.screen.say("Stopping: every training finishes its step and saves. A second Ctrl-C stops at once.")

    def _add(self, worker: _Process) -> None:
        self._processes.append(worker)
        assert worker.process.stdout is not None
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)

    def _remove(self, worker: _Process) -> None:
        self._processes.remove(worker)
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        worker.process.stdout.close()

    def _listen(self) -> None:
        """Wait a moment, for what workers say or for their ends."""
        until = time.monotonic() + _LOOK_SECONDS
        while (left := until - time.monotonic()) > 0:
            ready = self._selector.select(left)
            for key, _ in ready:
                for line in key.data.lines():
                    self.screen.say(line)
            if any(worker.process.poll() is not None for worker in self._processes):
                return
            if not ready:
                return

    def _replace_the_dead(self) -> None:
        for worker in list(self._processes):
            status = worker.process.poll()
            if status is None:
                continue
            for line in worker.lines():
                self.screen.say(line)
            self._remove(worker)
            if status == 0 or self._stopping.is_set():
                continue
            soon = time.monotonic() - worker.started < _SETTLED_SECONDS
            worker.deaths = worker.deaths + 1 if soon else 1
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            what = f"worker {worker.plan.number} {how}"
            if worker.deaths >= _DEATHS:
                self.screen.say(at_now(f"{what}, for the {_DEATHS}th time; it is not started again."))
                if not self._processes:
                    self._gave_up = f"every worker died {_DEATHS} times; see above why."
                continue
            self.screen.say(at_now(f"{what}; another one takes its place."))
            self._stopping.wait(0.2 * worker.deaths)
            worker.start()
            self._add(worker)

    def _look(self, before: Overview | None) -> Overview:
        """How the study stands; trials whose workers are gone are given to others."""
        ledger = self.ledger
        try:
            ledger.reap(self._failed_at)
            stands = overview(ledger.study, ledger.jobs, ledger.standings())
        except Exception as error:
            if not is_out_of_reach(error) or before is None:
                raise
            if not self._complained:
                self.screen.say(f"the storage is out of reach: {reason(error)} Trainings go on meanwhile.")
            self._complained, self._failed_at = True, time.monotonic()
            return before
        if self._complained:
            self.screen.say("the storage is there again.")
        self._complained = False
        return stands

    def _sweep_out(self) -> None:
        """Remove what workers that were killed have left to tell that they live."""
        for path in (self._folder / WORKERS).glob("*.lock"):
            if is_unheld(path):
                path.unlink(missing_ok=True)

"""Over one training of a trial, from its worker: it is listened to, answered, and stopped when it is time to."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner

from lit_t6.sweeps.ledger import Claim, Ledger
from lit_t6.sweeps.storage import Flag, is_out_of_reach, reason
from lit_t6.sweeps.trial import STOP_SECONDS, TrialProcess

_LISTEN_SECONDS = 0.5


@dataclass
class Watch:
    """A trial at work.

    Args:
        claim: to the trial.
        ledger: where signs of life and reports go.
        pruner: is asked at every report.
        heartbeat: seconds between two signs of life.
        stopping: has the training save and end.
        limit: seconds that it may take.
        say: takes a line about a storage that is out of reach.
    """

    claim: Claim
    ledger: Ledger
    pruner: BasePruner
    heartbeat: float
    stopping: Flag
    limit: float
    say: Callable[[str], None]
    since: float = field(default_factory=time.monotonic)
    times: dict[str, float] = field(default_factory=lambda: {"started": time.time()})
    step: int = 0
    of: int = 0
    pruned_at: int | None = None
    """The step at which it was told to stop for good."""
    last_report: float | None = None

    _beat_at = float("-inf")
    _complained = False

    @property
    def seconds(self) -> float:
        """Since it was claimed."""
        return time.monotonic() - self.since

    def see_to_its_end(self, process: TrialProcess) -> bool:
        """Listen to a training, answer, and stop it when it is time to; false if the trial is no longer ours."""
        process.stop_seconds = min(STOP_SECONDS, self.limit)
        while not process.has_ended():
            self._hear(process, _LISTEN_SECONDS)
            if not self.is_ours():
                return False
            if self.stopping.is_set():
                process.ask_to_stop("interrupted")
            elif self.seconds > self.limit:
                process.ask_to_stop("timed_out")
        self._hear(process, 0.0)
        return True

    def is_ours(self) -> bool:
        """Give a sign of life, if it is time to; false if the trial was given to somebody else."""
        now = time.monotonic()
        if now - self._beat_at < self.heartbeat:
            return True
        self._beat_at = now
        try:
            ours = self.ledger.beat(self.claim, self.step, self.of, self.seconds)
        except Exception as error:
            self._complain(error)
            return True
        if self._complained:
            self.say("the storage is there again.")
        self._complained = False
        return ours

    def _hear(self, process: TrialProcess, seconds: float) -> None:
        for message in process.listen(seconds):
            self.step, self.of = message["step"], message["of"]
            if "time" in message and "first_step" not in self.times:
                self.times["first_step"] = message["time"]
                self._beat_at = float("-inf")  # now there is something to tell
            if "report" in message:
                process.answer(self._decide(message))

    def _decide(self, message: Mapping[str, float]) -> str:
        """Write down a report, and ask the pruner."""
        value, at = message["value"], int(message["report"])
        if not math.isfinite(value):
            return "go"  # it is said to have diverged, if it stays so
        self.last_report = value
        try:
            prunes = self.ledger.report(self.claim, at, value, self.pruner)
        except UpdateFinishedTrialError:
            return "go"  # no longer ours; the next sign of life will tell
        except Exception as error:
            self._complain(error)
            return "go"
        if prunes and self.pruned_at is None:
            self.pruned_at = int(message["step"])
        return "prune" if prunes else "go"

    def _complain(self, error: Exception) -> None:
        if not is_out_of_reach(error):
            raise error
        if not self._complained:
            self.say(f"the storage is out of reach: {reason(error)} {self.claim.job.key} trains on meanwhile.")
        self._complained = True

"""What becomes of each attempt at the trials of a study, watched from outside; and workers that are killed."""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from lit_t6.sweeps.begun import open_begun
from lit_t6.sweeps.jobs import VOID, outcome_of
from lit_t6.sweeps.ledger import Ledger
from lit_t6.sweeps.storage import HEARTBEAT_SECONDS
from lit_t6.sweeps.study import Study

_SHARE = 1 / 6
"""Of its steps, that an attempt takes before its worker is killed."""
_LEFT_SECONDS = 4.0
"""That its trial would still take: what is known of it is up to two seconds old, and what is done is not resumed."""
_FOUND_DONE = 1.0
"""Seconds: an attempt of which no step was seen and that ends sooner has found the trial done."""


@dataclass
class Attempt:
    """One training of a trial, up to its end or its worker's.

    Args:
        job: cell and seed.
        place: where it was trained: "GPU 0", "GPUs 0,1", or "worker 0" on a CPU.
        outcome: completed, lost, …
        start: seconds since the study was started.
        end: likewise; None if it goes on.
        from_step: optimizer steps done before it, by earlier attempts; None if no step of it was seen.
        steps: done at its end, as far as was seen.
        value: of the objective.
        killed: whether its worker was killed here.
    """

    job: str
    place: str
    outcome: str
    start: float
    end: float | None = None
    from_step: int | None = None
    steps: int = 0
    value: float | None = None
    killed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def trained(attempt: Mapping[str, Any]) -> bool:
    """Whether an attempt trained: a worker may be killed between the end of its trial and saying so.

    Args:
        attempt: as of `Attempt.to_dict`.
    """
    if attempt["from_step"] is not None:
        return True
    return attempt["outcome"] == "completed" and attempt["end"] - attempt["start"] >= _FOUND_DONE


class Attempts:
    """Of a study that runs, read from its storage.

    Args:
        study: that runs.
        folder: of it.
        kills: of how many workers one is killed, on its trial's way, and another one when one of them has nothing left
            to do, until a trial that lost its worker has gone on in another place; 0 kills none.
    """

    def __init__(self, study: Study, folder: Path, kills: int = 0) -> None:
        self.study, self.folder, self.kills = study, folder, kills
        self.began = time.time()
        self._ledger: Ledger | None = None
        self._first: dict[int, tuple[int, float]] = {}  # of a trial: steps and seconds when it was first seen
        self._steps: dict[int, int] = {}  # when it was last seen
        self._killed: dict[int, tuple[str, str]] = {}  # trials that lost their workers, with the job and place of each

    def open(self) -> None:
        """Open the study's storage, unless it is open.

        Raises:
            ValueError: the study has not begun, or only just, or the storage holds another one of its name.
        """
        if self._ledger is None:
            self._ledger = open_begun(self.study, self.folder, None, HEARTBEAT_SECONDS)

    def look(self) -> None:
        """See what has been done since, and kill whom it is time to kill."""
        with suppress(ValueError):  # while it begins; what is still wrong at its end, `open` tells then
            self.open()
        if self._ledger is None:
            return
        trials = self._ledger.trials()
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in running:
            step, _, seconds = self._beat(trial)
            if step:
                self._first.setdefault(trial._trial_id, (step - 1, seconds))
                self._steps[trial._trial_id] = step
        if self.kills and (victim := self._victim(trials, running)):
            with suppress(ProcessLookupError):
                os.kill(victim.user_attrs["worker"]["pid"], signal.SIGKILL)
                self._killed[victim._trial_id] = _job_and_place(victim)

    @staticmethod
    def _beat(trial: FrozenTrial) -> tuple[int, int, float]:
        """Optimizer steps done, and in all, and seconds since its attempt was started; all 0 before its first sign."""
        _, step, of, seconds = trial.user_attrs.get("beat") or (0, 0, 0, 0.0)
        return int(step), int(of), float(seconds)

    def _victim(self, trials: list[FrozenTrial], running: list[FrozenTrial]) -> FrozenTrial | None:
        if not self._killed:
            return next(filter(self._is_on_its_way, running), None)
        idle = len(running) < self.kills and all(trial.state != TrialState.WAITING for trial in trials)
        if not idle or self._has_moved(trials):
            return None
        known = (trial for trial in running if "worker" in trial.user_attrs)
        stayed = (trial for trial in known if _job_and_place(trial) in self._killed.values())
        again = next(filter(self._has_time, stayed), None)  # what it did before its worker was killed is saved
        return again or next(filter(self._is_on_its_way, running), None)

    def _is_on_its_way(self, trial: FrozenTrial) -> bool:
        """Whether the attempt has done its share, and has time left."""
        step, of, _ = self._beat(trial)
        begun, _ = self._first.get(trial._trial_id, (step, 0.0))
        return step > begun and step - begun >= of * _SHARE and self._has_time(trial)

    def _has_time(self, trial: FrozenTrial) -> bool:
        """Whether the trial will not be done before its worker is killed, as far as one can know."""
        step, of, seconds = self._beat(trial)
        begun, at = self._first.get(trial._trial_id, (step, seconds))
        if step == begun or seconds == at:
            return 2 * step <= of
        return (of - step) / (step - begun) * (seconds - at) >= _LEFT_SECONDS

    def _has_moved(self, trials: list[FrozenTrial]) -> bool:
        """Whether a trial that lost its worker has gone on in another place."""
        places: dict[str, set[str]] = {}
        for attempt in map(self._attempt, filter(lambda trial: "worker" in trial.user_attrs, trials)):
            if trained(attempt.to_dict()):
                places.setdefault(attempt.job, set()).add(attempt.place)
        return any(len(places.get(job, ())) > 1 for job, _ in self._killed.values())

    def all(self) -> list[Attempt]:
        """What is known of each, in the order in which they began."""
        self.look()
        if self._ledger is None:
            return []
        trials = [trial for trial in self._ledger.trials() if trial.user_attrs.get("worker")]
        found = [self._attempt(trial) for trial in trials if outcome_of(trial) != VOID]
        return sorted(found, key=lambda attempt: attempt.start)

    def _attempt(self, trial: FrozenTrial) -> Attempt:
        said = trial.user_attrs
        worker, times = said["worker"], said.get("times") or {}
        first, last = self._first.get(trial._trial_id, (None,))[0], self._steps.get(trial._trial_id, 0)
        started = times.get("started") or (trial.datetime_start.timestamp() if trial.datetime_start else self.began)
        ended = times.get("ended") or (trial.datetime_complete.timestamp() if trial.datetime_complete else None)
        return Attempt(
            job=str(said["job"]),
            place=place_of(worker),
            outcome=outcome_of(trial),
            start=started - self.began,
            end=None if ended is None else ended - self.began,
            from_step=first,
            steps=int(said.get("step") or last),
            value=trial.value if trial.values else None,
            killed=trial._trial_id in self._killed,
        )


def _job_and_place(trial: FrozenTrial) -> tuple[str, str]:
    return str(trial.user_attrs["job"]), place_of(trial.user_attrs["worker"])


def place_of(worker: dict[str, Any]) -> str:
    """Where a worker trains.

    Args:
        worker: its identity, as the storage has it.
    """
    gpus = worker.get("gpus") or ""
    if not gpus:
        return f"worker {worker.get('number', 0)}"
    return f"GPU{'s' * (',' in gpus)} {gpus}"

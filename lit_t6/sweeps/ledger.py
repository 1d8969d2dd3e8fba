"""The trials of a study in its storage: made once, claimed by one process each, and recorded once.

A trial is only ever made, claimed, and ended. A second attempt is another trial: what one process claims no other can
give back, so that no two can believe that they hold it.
"""

import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from lit_t6.sweeps.jobs import DUE, VOID, Job, Standing, by_job, in_turn, is_needless, standing, standing_before
from lit_t6.sweeps.presence import is_dead
from lit_t6.sweeps.records import TAKEN_OVER, restored
from lit_t6.sweeps.study import Study

STATES = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
"""Optuna's, of the outcomes that are results; all others are failures."""


@dataclass(frozen=True)
class Claim:
    """A trial that this process has to see to its end.

    Args:
        trial_id: in the storage.
        number: of the trial in the study.
        job: what it is to train.
        earlier: how the job stood before: attempts that failed, and the time that they took.
    """

    trial_id: int
    number: int
    job: Job
    earlier: Standing


class Ledger:
    """The trials of one study.

    Args:
        study: what is asked.
        jobs: that it consists of.
        storage: see `open_storage`.
        folder: of the study, with a folder for each job.
        grace: seconds without a sign of life after which a worker counts as gone.
        me: identity of this process; see `Presence`. A worker adds its number and its GPUs.
    """

    def __init__(
        self,
        study: Study,
        jobs: Sequence[Job],
        storage: BaseStorage,
        folder: Path,
        grace: float,
        me: Mapping[str, Any],
    ) -> None:
        self.study, self.storage, self.folder, self.grace, self.me = study, storage, folder, grace, me
        self.jobs = {job.key: job for job in jobs}
        self.optuna = optuna.create_study(
            study_name=study.name, storage=storage, direction=study.objective.direction, load_if_exists=True
        )
        self.study_id = storage.get_study_id_from_name(study.name)
        self._heartbeats: Any = storage if hasattr(storage, "record_heartbeat") else None
        self._seen: dict[int, tuple[Any, float]] = {}  # of running trials: the last sign of life, and when it changed
        self._beats = 0

    def trials(self) -> list[FrozenTrial]:
        """All trials, those of no job of ours among them."""
        return self.storage.get_all_trials(self.study_id, deepcopy=False)

    def standings(self) -> dict[str, Standing]:
        """How each job stands."""
        found = by_job(self.trials())
        return {key: standing(found.get(key, ()), self.study.retries) for key in self.jobs}

    # Making trials.

    def make_due(self, again: Callable[[Standing], bool] = lambda stands: False) -> int:
        """Make a trial for every job that has none at work or waiting and needs one.

        What two processes make at the same time does no harm: see `is_needless`. A job that the storage does not know
        to be finished, but whose folder has the record of a finished trial, is taken over from there.

        Args:
            again: jobs that failed for good, and are to be tried anew all the same.

        Returns:
            How many are made.
        """
        made = 0
        for key, stands in self.standings().items():
            asked = stands.is_over and stands.status not in ("completed", "pruned") and again(stands)
            if stands.status != DUE and not asked:
                continue
            finished = None if asked else restored(self.folder / key, self.study, self.jobs[key])
            template = finished or self._new(self.jobs[key], stands, asked)
            trial_id = self.storage.create_new_trial(self.study_id, template)
            if finished is None:
                made += 1
            else:
                self._take_over(self.storage.get_trial(trial_id))
        return made

    def _take_over(self, trial: FrozenTrial) -> None:
        """See a trial that waits, and was finished in a storage that is lost, to the end that it had; once of a job."""
        job = self.jobs[trial.user_attrs["job"]]
        if (claim := self._claim(trial, job)) is not None:
            ends = trial.user_attrs[TAKEN_OVER]
            said = {"outcome": ends["outcome"], "worker": ends["worker"]}
            self._end(claim, STATES[ends["outcome"]], ends["value"], said)

    def _new(self, job: Job, stands: Standing, asked: bool) -> FrozenTrial:
        said: dict[str, Any] = {"job": job.key, "cell": job.cell, "seed": job.seed, "attempts": stands.attempts + 1}
        said["fingerprint"] = job.fingerprint
        fixed: dict[str, Any] = {}
        values: dict[int, float] = {}
        if stands.trial is not None:
            fixed, values = dict(stands.trial.params), dict(stands.trial.intermediate_values)
        return create_trial(
            state=TrialState.WAITING,
            user_attrs=said | ({"asked": True} if asked else {}),
            system_attrs={"fixed_params": fixed},
            intermediate_values=values,
        )

    # Claiming.

    def claim(self) -> Claim | None:
        """Take a trial that waits, for this process alone, the first `in_turn`; None if there is none.

        The storage changes its state from waiting to running once: a row of a database is locked for it, and of two
        records in a journal, which lie one after the other, the first counts for all who read it.
        """
        for trial in in_turn(self.trials()):
            job = self.jobs.get(str(trial.user_attrs.get("job")))
            if job is None:  # of a larger study that somebody else runs
                continue
            if TAKEN_OVER in trial.user_attrs:
                self._take_over(trial)
            elif (claim := self._claim(trial, job)) is not None:
                return claim
        return None

    def _claim(self, trial: FrozenTrial, job: Job) -> Claim | None:
        """Take this trial; None if somebody else has, or it is needless."""
        try:
            if not self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                return None
        except UpdateFinishedTrialError:
            return None
        claim = Claim(trial._trial_id, trial.number, job, Standing(DUE, None))
        if not self._settle(claim):
            return None
        siblings = by_job(self.trials())[job.key]
        if is_needless(trial, siblings, self.study.retries):
            self._end(claim, TrialState.FAIL, None, {"outcome": VOID})
            return None
        return replace(claim, earlier=standing_before(trial, siblings, self.study.retries))

    def _settle(self, claim: Claim) -> bool:
        """Say who runs it."""
        if self._heartbeats is not None:
            self._heartbeats.record_heartbeat(claim.trial_id)
        try:
            self.storage.set_trial_user_attr(claim.trial_id, "worker", dict(self.me))
        except UpdateFinishedTrialError:
            return False
        return True

    # While it runs.

    def note(self, claim: Claim, **said: Any) -> None:
        """Write down something about a trial, such as the options of its cell."""
        for name, value in said.items():
            self.storage.set_trial_user_attr(claim.trial_id, name, value)

    def beat(self, claim: Claim, step: int, of: int, seconds: float) -> bool:
        """Give a sign of life; false if the trial has been given to somebody else.

        Args:
            claim: what is at work.
            step: optimizer steps done.
            of: steps in all; 0 if that is not known.
            seconds: since it was started.
        """
        self._beats += 1
        if self._heartbeats is not None:
            self._heartbeats.record_heartbeat(claim.trial_id)
        try:
            self.storage.set_trial_user_attr(claim.trial_id, "beat", [self._beats, step, of, round(seconds, 1)])
        except UpdateFinishedTrialError:
            return False
        return True

    def report(self, claim: Claim, at: int, value: float, pruner: BasePruner) -> bool:
        """Write down a value of the objective on the way; whether the pruner sees no use in going on.

        Args:
            claim: what is at work.
            at: steps, or tokens; equal ones are compared.
            value: of the objective there.
            pruner: of the study.
        """
        self.storage.set_trial_intermediate_value(claim.trial_id, at, value)
        trial = copy.copy(self.storage.get_trial(claim.trial_id))
        # An earlier attempt may have come further.
        trial.intermediate_values = {step: each for step, each in trial.intermediate_values.items() if step <= at}
        return pruner.prune(self.optuna, trial)

    # Ending.

    def finish(self, claim: Claim, outcome: str, value: float | None, said: Mapping[str, Any]) -> bool:
        """Record how a trial ended; false if it was given to somebody else meanwhile: then this does not count.

        May be called again if it raised.

        Args:
            claim: what has ended.
            outcome: completed, pruned, one of REASONS, or interrupted.
            value: of the objective; for a trial that was pruned, that of its last report, if there is one.
            said: what else is known: reason, metrics, seconds, step …
        """
        state = STATES.get(outcome, TrialState.FAIL)
        return self._end(claim, state, None if state == TrialState.FAIL else value, {**said, "outcome": outcome})

    def _end(self, claim: Claim, state: TrialState, value: float | None, said: Mapping[str, Any]) -> bool:
        try:
            self.note(claim, **said)
            self.storage.set_trial_state_values(claim.trial_id, state, None if value is None else [value])
        except UpdateFinishedTrialError:
            # Either somebody else's word counts, or this did work when it seemed not to.
            trial = self.storage.get_trial(claim.trial_id)
            worker = trial.user_attrs.get("worker") or {}
            outcome = trial.user_attrs.get("outcome")
            return trial.state == state and worker.get("id") == self.me["id"] and outcome == said["outcome"]
        return True

    # Those who are gone.

    def reap(self, failed_at: float = float("-inf")) -> list[str]:
        """Give up the trials whose workers are gone, and make others in their places.

        Args:
            failed_at: when the storage was last out of reach, by `time.monotonic()`. Workers could give no sign then,
                and have a whole grace since.

        Returns:
            The jobs concerned.
        """
        found, now = [], time.monotonic()
        patient = now - failed_at > self.grace
        if self._heartbeats is not None and patient:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self.optuna)
        running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        for trial in running:
            worker = trial.user_attrs.get("worker")
            sign = (trial.user_attrs.get("beat"), worker)
            before, since = self._seen.get(trial._trial_id, (None, now))
            if before != sign:
                since = now
            self._seen[trial._trial_id] = sign, max(since, failed_at)
            silent = now - max(since, failed_at) > self.grace
            if (is_dead(worker) or silent) and self.lose(trial):
                found.append(str(trial.user_attrs.get("job")))
        self.make_due()
        return found

    def lose(self, trial: FrozenTrial, outcome: str = "lost", reason: str = "") -> bool:
        """Give up a running trial whose worker is gone; false if somebody else did, or it ended.

        Args:
            trial: that nobody is at work on.
            outcome: to record.
            reason: in a line.
        """
        worker = trial.user_attrs.get("worker") or {}
        who = f"its worker, process {worker['pid']} on {worker['host']}," if worker else "its worker"
        said = {"outcome": outcome, "reason": reason or f"{who} was killed or gave no sign of life"}
        try:
            for name, value in said.items():
                self.storage.set_trial_user_attr(trial._trial_id, name, value)
            return self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False

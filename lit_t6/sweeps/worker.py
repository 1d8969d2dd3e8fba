"""A worker: claims a trial, has it trained by a fresh process, records what became of it, until nothing is left."""

import math
import pickle
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import optuna

from lit_t6.sweeps.cells import Cell
from lit_t6.sweeps.command import fit_command
from lit_t6.sweeps.jobs import jobs_of, outcome_of
from lit_t6.sweeps.ledger import Claim, Ledger
from lit_t6.sweeps.presence import Presence
from lit_t6.sweeps.records import write_record
from lit_t6.sweeps.search import build_pruner, build_sampler, suggest
from lit_t6.sweeps.storage import GRACE, Flag, Patience, is_out_of_reach, open_storage, reason
from lit_t6.sweeps.study import Study
from lit_t6.sweeps.trial import Ended, TrialProcess, end_others, finished_before

REPORTER = "--trainer.callbacks+=lit_t6.sweeps.pruning.ReportToStudy"
WORKERS = "workers"
"""In the folder of a study: who is at work."""
_IDLE_SECONDS = 1.0
_LISTEN_SECONDS = 0.5
_PACKAGES = ("lit-t6", "torch", "lightning", "optuna")


@dataclass(frozen=True)
class Plan:
    """What a worker has to know.

    Args:
        study: what is asked.
        cells: of the study; none of a search.
        storage: its address; None for the journal in `folder`.
        folder: of the study.
        heartbeat: seconds between two signs of life.
        number: of the worker among those of its coordinator.
        environment: variables of its trainings, such as CUDA_VISIBLE_DEVICES.
    """

    study: Study
    cells: tuple[Cell, ...]
    storage: str | None
    folder: Path
    heartbeat: float
    number: int = 0
    environment: Mapping[str, str] | None = None


class Worker:
    """Works on a study in this process.

    Args:
        plan: what to do.
        stopping: ends it: the training at work saves first.
    """

    def __init__(self, plan: Plan, stopping: Flag) -> None:
        self.plan, self.study, self.stopping = plan, plan.study, stopping
        self.patience = Patience(self.say, self.stopping)
        self.presence = Presence(plan.folder / WORKERS)
        storage = self.patience(
            "opening the storage", open_storage, plan.storage, plan.folder, plan.heartbeat, self.say
        )
        jobs, grace = jobs_of(plan.study), GRACE * plan.heartbeat
        arguments = (plan.study, jobs, storage, plan.folder, grace, self.presence.identity)
        self.ledger: Ledger = self.patience("reading the study", Ledger, *arguments)
        self._cells = {cell.name: cell for cell in plan.cells}
        self._pruner = build_pruner(plan.study)

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        print(f"worker {self.plan.number}: {text}", flush=True)

    def run(self) -> None:
        """Work until every job is over, or this is to stop."""
        try:
            while not self.stopping.is_set():
                claim = self.patience("claiming a trial", self.ledger.claim)
                if claim is not None:
                    self._see_to(claim)
                elif all(stands.is_over for stands in self.patience("reading the study", self.ledger.standings).values()):
                    break
                else:
                    self.stopping.wait(_IDLE_SECONDS)  # others are at work, and one may be lost
        except Exception as error:
            if not (self.stopping.is_set() and is_out_of_reach(error)):
                raise
        finally:
            self.presence.close()

    def _see_to(self, claim: Claim) -> None:
        started, times = time.monotonic(), {"started": time.time()}
        folder = self.plan.folder / claim.job.key
        pruned: dict[str, float] = {}
        try:
            cell = self.patience("choosing settings", self._cell, claim)
            notes = {"options": dict(cell.options), "configs": [*map(str, cell.configs)], "folder": str(folder)}
            self.patience("writing down a trial", lambda: self.ledger.note(claim, **notes))
            ended = finished_before(folder, self.study.objective.metric)
            if ended is None:
                ended = self._train(claim, cell, folder, times, pruned)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # it was given to somebody else
        except ValueError as error:
            ended = Ended("failed", str(error))
        if ended is None:
            self.say(f"{claim.job.key}: was given to another worker while this one gave no sign of life.")
            return
        times["ended"] = time.time()
        self._record(claim, ended, folder, times, time.monotonic() - started, pruned)

    def _record(
        self, claim: Claim, ended: Ended, folder: Path, times: dict[str, float], seconds: float, pruned: dict[str, float]
    ) -> None:
        metric = self.study.objective.metric
        figures = ended.found.get("metrics") or {}
        said = {
            "reason": ended.reason,
            "metrics": {name: figures.get(name) for name in dict.fromkeys((metric, *self.study.record))},
            "facts": ended.found.get("facts") or {},
            "step": ended.found.get("step") or 0,
            "seconds": round(seconds, 3),
            "times": times,
            "versions": _versions(),
        }
        value = pruned.get("value") if ended.outcome == "pruned" else figures.get(metric)
        if "step" in pruned and ended.outcome == "pruned":
            said["step"] = int(pruned["step"])
        what = f"recording {claim.job.key}"
        if not self.patience(what, self.ledger.finish, claim, ended.outcome, value, said):
            self.say(f"{claim.job.key}: is not counted: it was given to another worker meanwhile.")
            return
        trial = self.patience(what, self.ledger.storage.get_trial, claim.trial_id)
        if outcome_of(trial) != "interrupted":
            self.patience(what, write_record, folder, trial, self.study)
        if ended.outcome not in ("completed", "pruned"):
            self.patience("making a trial", self.ledger.make_due)

    def _cell(self, claim: Claim) -> Cell:
        if self.study.search is None:
            return self._cells[claim.job.cell]
        study = self.ledger.optuna
        study.sampler = build_sampler(self.study, claim.number)
        cell = suggest(self.study, optuna.Trial(study, claim.trial_id))
        return replace(cell, name=claim.job.cell)

    # One training.

    def _train(
        self, claim: Claim, cell: Cell, folder: Path, times: dict[str, float], pruned: dict[str, float]
    ) -> Ended | None:
        """Have it trained; None if it was given to somebody else meanwhile."""
        command = [*fit_command(self.study, cell, claim.job.seed, folder), REPORTER]
        pruner = self.study.pruner
        unit, every = ("tokens", pruner.every_n_tokens) if pruner.every_n_tokens else ("steps", pruner.every_n_steps)
        prunes = pruner.name != "none"
        settings = {"metric": self.study.objective.metric, "unit": unit, "every": every, "prunes": prunes}
        environment = self.plan.environment or {}
        while True:
            watch = _Watch(self, claim, time.monotonic(), self._limit(claim), times, pruned)
            while not end_others(folder):
                if not watch.is_ours():
                    return None
                if self.stopping.wait(_IDLE_SECONDS):
                    return Ended("interrupted", "it was stopped before it began")
            process = self.patience(f"starting {claim.job.key}", TrialProcess, command, folder, settings, environment)
            try:
                if not watch.see_to_its_end(process):
                    return None
            finally:
                process.close()
            ended = process.outcome(self.study.objective.metric, int(pruned["step"]) if pruned else None)
            if ended.outcome != "taken":
                return ended

    def _limit(self, claim: Claim) -> float:
        """Seconds that this attempt may take: what is left, and the whole again for each time that it took too long."""
        if self.study.time_limit is None:
            return math.inf
        times = 1 + sum(outcome_of(trial) == "timed_out" for trial in claim.earlier.failures)
        return max(1.0, times * self.study.time_limit - claim.earlier.seconds)

    def should_prune(self, claim: Claim, at: int, value: float) -> bool:
        """Write down a report, and ask the study's pruner."""
        storage = self.ledger.storage
        storage.set_trial_intermediate_value(claim.trial_id, at, value)
        return self._pruner.prune(self.ledger.optuna, storage.get_trial(claim.trial_id))


class _Watch:
    """Over one training, from its worker."""

    def __init__(
        self,
        worker: Worker,
        claim: Claim,
        since: float,
        limit: float,
        times: dict[str, float],
        pruned: dict[str, float],
    ) -> None:
        self.worker, self.claim, self.since, self.limit = worker, claim, since, limit
        self.times, self.pruned = times, pruned
        self.step = self.of = 0
        self._beat_at = float("-inf")
        self._warned = False

    def see_to_its_end(self, process: TrialProcess) -> bool:
        """Listen to it, answer, and stop it when it is time to; false if the trial is no longer ours."""
        while not process.has_ended():
            self._hear(process, _LISTEN_SECONDS)
            if not self.is_ours():
                return False
            if self.worker.stopping.is_set():
                process.ask_to_stop("interrupted")
            elif time.monotonic() - self.since > self.limit:
                process.ask_to_stop("timed_out")
        self._hear(process, 0.0)
        return True

    def _hear(self, process: TrialProcess, seconds: float) -> None:
        for message in process.listen(seconds):
            self.step, self.of = message["step"], message["of"]
            if "time" in message:
                self.times.setdefault("first_step", message["time"])
            if "report" in message:
                process.answer(self._decide(message))

    def _decide(self, message: Mapping[str, Any]) -> str:
        value = message["value"]
        if not math.isfinite(value):
            return "go"  # it is said to have diverged, if it stays so
        try:
            prunes = self.worker.should_prune(self.claim, message["report"], value)
        except optuna.exceptions.UpdateFinishedTrialError:
            return "go"  # no longer ours; the next sign of life will tell
        except Exception as error:
            self._complain(error)
            return "go"
        if prunes:
            self.pruned.update(step=message["step"], value=value)
        return "prune" if prunes else "go"

    def is_ours(self) -> bool:
        """Give a sign of life, if it is time to; false if the trial was given to somebody else."""
        now = time.monotonic()
        if now - self._beat_at < self.worker.plan.heartbeat:
            return True
        self._beat_at = now
        try:
            ours = self.worker.ledger.beat(self.claim, self.step, self.of, now - self.since)
        except Exception as error:
            self._complain(error)
            return True
        self._warned = False
        return ours

    def _complain(self, error: Exception) -> None:
        if not is_out_of_reach(error):
            raise error
        if not self._warned:
            self.worker.say(f"the storage is out of reach: {reason(error)} {self.claim.job.key} trains on meanwhile.")
        self._warned = True


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    """Work on the plan that comes in by the standard input, from the coordinator.

    Returns:
        The exit status: 0 if nothing is left, or this was to stop.
    """
    stopping = Flag()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator's business
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    plan: Plan = pickle.load(sys.stdin.buffer)  # written by our own parent
    try:
        Worker(plan, stopping).run()
    except ValueError as error:
        print(f"worker {plan.number}: error: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

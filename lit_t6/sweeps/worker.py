"""A worker: claims a trial, has it trained by a fresh process, records what became of it, until nothing is left."""

import math
import pickle
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import optuna

from lit_t6.sweeps.cells import Cell
from lit_t6.sweeps.command import fit_command
from lit_t6.sweeps.jobs import DONE, INTERRUPTED, by_job, jobs_of, judged_runs, run_name
from lit_t6.sweeps.ledger import Claim, Ledger
from lit_t6.sweeps.presence import WORKERS, Presence
from lit_t6.sweeps.reading import spelt
from lit_t6.sweeps.records import write_record
from lit_t6.sweeps.same_data import ALL, say_place
from lit_t6.sweeps.search import build_pruner, build_sampler, suggest
from lit_t6.sweeps.storage import GRACE, Flag, Patience, is_out_of_reach, open_storage
from lit_t6.sweeps.study import Study
from lit_t6.sweeps.trial import Ended, TrialProcess, end_others, finished_before, set_aside
from lit_t6.sweeps.watch import Watch

REPORTER = "--trainer.callbacks+=lit_t6.sweeps.pruning.ReportToStudy"
IDLE_SECONDS = 1.0
"""After which a worker without a trial looks for one again."""
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
        pause: seconds before its first trial.
        places: where the data of each cell lies, and by `ALL` that of the others.
    """

    study: Study
    cells: tuple[Cell, ...]
    storage: str | None
    folder: Path
    heartbeat: float
    number: int = 0
    environment: Mapping[str, str] | None = None
    pause: float = 0.0
    places: Mapping[str, str] = field(default_factory=dict)


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
        gpus = (plan.environment or {}).get("CUDA_VISIBLE_DEVICES", "")
        me = {**self.presence.identity, "number": plan.number, "gpus": gpus}
        arguments = (plan.study, jobs, storage, plan.folder, grace, me)
        self.ledger: Ledger = self.patience("reading the study", Ledger, *arguments)
        self._cells = {cell.name: cell for cell in plan.cells}
        self._pruner = build_pruner(plan.study)

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        print(f"worker {self.plan.number}: {text}", flush=True)

    def run(self) -> None:
        """Work until every job is over, or this is to stop."""
        try:
            self.stopping.wait(self.plan.pause)
            while not self.stopping.is_set():
                claim = self.patience("claiming a trial", self.ledger.claim)
                if claim is not None:
                    self._see_to(claim)
                elif all(
                    stands.is_over for stands in self.patience("reading the study", self.ledger.standings).values()
                ):
                    break
                else:
                    self.stopping.wait(IDLE_SECONDS)  # others are at work, and one may be lost
        except Exception as error:
            if not (self.stopping.is_set() and is_out_of_reach(error)):
                raise
        finally:
            self.presence.close()

    def _see_to(self, claim: Claim) -> None:
        limit, folder = self._limit(claim), self.plan.folder / claim.job.key
        watch = Watch(claim, self.ledger, self._pruner, self.plan.heartbeat, self.stopping, limit, self.say)
        try:
            cell = self.patience("choosing settings", self._cell, claim)
            notes = {"options": dict(cell.options), "configs": [*map(str, cell.configs)], "folder": str(folder)}
            self.patience("writing down a trial", lambda: self.ledger.note(claim, **notes))
            ended = self._train(watch, cell, folder)
        except optuna.exceptions.UpdateFinishedTrialError:
            ended = None
        except ValueError as error:  # of the study, which was looked at, but a search's settings come one by one
            ended = Ended("failed", str(error))
        if ended is None:
            self.say(f"{claim.job.key}: was given to another worker while this one gave no sign of life.")
        else:
            self._record(watch, ended, folder)

    def _record(self, watch: Watch, ended: Ended, folder: Path) -> None:
        claim, metric = watch.claim, self.study.objective.metric
        figures = ended.found.get("metrics") or {}
        pruned = ended.outcome == "pruned"
        said = {
            "reason": ended.reason,
            "remark": ended.remark,
            "metrics": {name: figures.get(name) for name in dict.fromkeys((metric, *self.study.record))},
            "facts": ended.found.get("facts") or {},
            "step": watch.pruned_at if pruned else max(ended.found.get("step") or 0, watch.step),
            "seconds": round(watch.seconds, 3),
            "times": {**watch.times, "ended": time.time()},
            "versions": _versions(),
        }
        if ended.is_final:
            said["final"] = True
        value = watch.last_report if pruned else figures.get(metric)
        what = f"recording {claim.job.key}"
        if not self.patience(what, self.ledger.finish, claim, ended.outcome, value, said):
            self.say(f"{claim.job.key}: is not counted: it was given to another worker meanwhile.")
            return
        trial = self.patience(what, self.ledger.storage.get_trial, claim.trial_id)
        if ended.outcome != INTERRUPTED:
            self.patience(what, write_record, folder, trial, self.study)
        if ended.outcome not in DONE:
            self.patience("making a trial", self.ledger.make_due)

    def _cell(self, claim: Claim) -> Cell:
        if self.study.search is None:
            return self._cells[claim.job.cell]
        study = self.ledger.optuna
        # Quasi-random settings are spread well only if all are drawn by the same seed.
        study.sampler = build_sampler(self.study, 0 if self.study.sampler.name == "qmc" else claim.number)
        cell = suggest(self.study, optuna.Trial(study, claim.trial_id))
        return replace(cell, name=claim.job.cell)

    def _train(self, watch: Watch, cell: Cell, folder: Path) -> Ended | None:
        """Have it trained; None if it was given to somebody else meanwhile."""
        job, metric, pruner = watch.claim.job, self.study.objective.metric, self.study.pruner
        command = [*fit_command(self.study, cell, job.seed, folder), REPORTER]
        by_tokens = pruner.every_n_tokens > 0
        judged = judged_runs(by_job(self.patience("reading the study", self.ledger.trials)).get(job.key, ()))
        settings = {
            "run": run_name(self.ledger.me, watch.claim.number),
            "metric": metric,
            "unit": "tokens" if by_tokens else "steps",
            "every": pruner.every_n_tokens if by_tokens else pruner.every_n_steps,
            "prunes": pruner.name != "none",
        }
        environment = self.plan.environment or {}
        while True:
            while True:
                is_free = end_others(folder)
                if (ended := finished_before(folder, metric, judged)) is not None:
                    return ended
                if is_free:
                    break
                if not watch.is_ours():
                    return None
                if self.stopping.wait(IDLE_SECONDS):
                    return Ended(INTERRUPTED, "it was stopped before it began")
            if aside := self.patience(f"starting {job.key}", set_aside, folder):
                self.say(f"{job.key}: is trained from the start; the run that came to nothing is kept in {aside}.")
            if place := self.plan.places.get(cell.name, self.plan.places.get(ALL)):
                self.patience(f"starting {job.key}", say_place, folder, place)
            process = self.patience(f"starting {job.key}", TrialProcess, command, folder, settings, environment)
            try:
                if not watch.see_to_its_end(process):
                    return None
            finally:
                process.close()
            ended = process.outcome(metric, watch.pruned_at)
            if ended.outcome == "timed_out":
                return replace(ended, reason=self._too_long(watch.claim))
            if ended.outcome != "taken":
                return ended

    def _limit(self, claim: Claim) -> float:
        """Seconds that this attempt may take: what earlier ones left, and the whole after one that took too long."""
        limit = self.study.time_limit
        return math.inf if limit is None else max(1.0, limit - claim.earlier.seconds_of_limit)

    def _too_long(self, claim: Claim) -> str:
        """Why a trial timed out."""
        earlier, limit = claim.earlier.seconds_of_limit, self.study.time_limit
        assert limit is not None
        told = f", of which earlier attempts took {spelt(round(earlier))}" if earlier else ""
        return f"it took longer than its time limit, {spelt(limit)}{told}"


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

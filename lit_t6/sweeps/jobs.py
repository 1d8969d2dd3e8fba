"""What a study has to train: its jobs, and how each of them stands, given the trials that were made for it.

A job is a cell with a seed, or one trial of a search. A trial that ends in vain stays as it is; another one of the same
job, an attempt more, takes its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from lit_t6.sweeps.cells import plain_cells
from lit_t6.sweeps.digest import of_cell
from lit_t6.sweeps.study import REASONS, Study

VOID = "void"
"""Outcome of a trial that another one of the same job made needless, made by two processes at the same time."""
INTERRUPTED = "interrupted"
"""Outcome of a trial that a person stopped; another one goes on with it."""
DUE = "due"
"""Of a job for which a trial is to be made."""
DONE = ("completed", "pruned")


@dataclass(frozen=True)
class Job:
    """A training that a study needs.

    Args:
        key: its folder in that of the study, such as "2,1,1/seed-0".
        cell: name of its cell; for a search, of the trial, whose settings are chosen when it starts.
        seed: of the training.
        fingerprint: of the cell's own settings.
        placed: the same with the place of the data, which older trials bear.
    """

    key: str
    cell: str
    seed: int
    fingerprint: str = ""
    placed: str = ""

    @property
    def fingerprints(self) -> tuple[str, str]:
        """Those that trials of it may bear."""
        return self.fingerprint, self.placed


def jobs_of(study: Study) -> list[Job]:
    """All jobs of a study, in the order in which they are started: every cell with the first seed, then the next."""
    if study.search is not None:
        names = [f"trial-{number:04}" for number in range(study.num_trials)]
        return [Job(f"{name}/seed-{seed}", name, seed) for seed in study.seeds for name in names]
    found = [(cell.name, of_cell(cell), of_cell(cell, places=True)) for cell in plain_cells(study)]
    return [Job(f"{name}/seed-{seed}", name, seed, *of) for seed in study.seeds for name, *of in found]


def outcome_of(trial: FrozenTrial) -> str:
    """How a trial ended: completed, pruned, one of REASONS, interrupted or void; or running, or waiting."""
    if trial.state != TrialState.FAIL:
        return {TrialState.COMPLETE: "completed"}.get(trial.state, trial.state.name.lower())
    said = trial.user_attrs.get("outcome")
    return said if said in (*REASONS, INTERRUPTED, VOID) else "lost"


@dataclass(frozen=True)
class Standing:
    """How a job stands.

    Args:
        status: completed, pruned, running, waiting, due, or the reason why it failed and is not tried again.
        trial: the one that says so; None of a job that has none yet.
        failures: the attempts in vain that count, in order; those that were asked for anew count from there.
        past: all attempts that failed or were interrupted, in order.
    """

    status: str
    trial: FrozenTrial | None
    failures: tuple[FrozenTrial, ...] = ()
    past: tuple[FrozenTrial, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be done for the job any more."""
        return self.status not in ("running", "waiting", DUE)

    @property
    def seconds(self) -> float:
        """That the attempts have taken, which failed or were interrupted."""
        return sum(map(seconds_of, self.failures))

    @property
    def seconds_of_limit(self) -> float:
        """That attempts have taken of the time limit, which one that took too long gives the next one anew."""
        too_long = [number for number, trial in enumerate(self.failures, 1) if outcome_of(trial) == "timed_out"]
        return sum(map(seconds_of, self.failures[max(too_long, default=0) :]))

    @property
    def step(self) -> int:
        """The last optimizer step that is known of any attempt."""
        return max(map(step_of, (*self.past, *([self.trial] if self.trial else []))), default=0)

    @property
    def attempts(self) -> int:
        """Attempts that failed or were interrupted."""
        return len(self.past)


def standing(trials: Sequence[FrozenTrial], retries: Mapping[str, int]) -> Standing:
    """How a job stands.

    Args:
        trials: all of the job, in order of their numbers.
        retries: how often it may be tried again, by reason.
    """
    real = [trial for trial in trials if outcome_of(trial) != VOID]
    past = tuple(trial for trial in real if trial.state == TrialState.FAIL)
    asked = max((trial.number for trial in real if trial.user_attrs.get("asked")), default=0)
    failures = tuple(trial for trial in past if trial.number >= asked)
    for states in ((TrialState.COMPLETE, TrialState.PRUNED), (TrialState.RUNNING, TrialState.WAITING)):
        if found := next((trial for trial in real if trial.state in states), None):
            return Standing(outcome_of(found), found, failures, past)
    if not failures:
        return Standing(DUE, None)
    counts = _counted(failures)
    exhausted = any(count > retries.get(reason, 0) for reason, count in counts.items())
    exhausted |= any(trial.user_attrs.get("final") for trial in failures)
    last = failures[-1]
    return Standing(outcome_of(last) if exhausted else DUE, last, failures, past)


def in_turn(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that wait, in the order in which they are to be begun: half-trained ones do not pile up.

    First come those of jobs of which some attempt has taken steps, then the others, each in the order in which they
    were made: that of `jobs_of`, and then those that are tried again.

    Args:
        trials: all of a study.
    """
    begun = {
        trial.user_attrs.get("job")
        for trial in trials
        if trial.state == TrialState.FAIL and outcome_of(trial) != VOID and step_of(trial) > 0
    }
    waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
    return sorted(waiting, key=lambda trial: (trial.user_attrs.get("job") not in begun, trial.number))


def standing_before(trial: FrozenTrial, siblings: Sequence[FrozenTrial], retries: Mapping[str, int]) -> Standing:
    """How a job stood before a trial of it; of one that was asked for anew, no attempt before it counts.

    Args:
        trial: that has been claimed.
        siblings: all trials of its job.
        retries: of the study.
    """
    stood = standing([other for other in siblings if other.number < trial.number], retries)
    return replace(stood, failures=()) if trial.user_attrs.get("asked") else stood


def _counted(failures: Sequence[FrozenTrial]) -> dict[str, int]:
    """Attempts by reason; one whose worker was lost counts only if it came no further than those before it."""
    counts: dict[str, int] = {}
    furthest = 0
    for trial in failures:
        outcome, step = outcome_of(trial), step_of(trial)
        if outcome in REASONS and not (outcome == "lost" and step > furthest):
            counts[outcome] = counts.get(outcome, 0) + 1
        furthest = max(furthest, step)
    return counts


def is_needless(trial: FrozenTrial, siblings: Sequence[FrozenTrial], retries: Mapping[str, int]) -> bool:
    """Whether a trial that has just been claimed must not run, since another one of its job does, did or will.

    Of several that two processes made at the same time the first counts; all processes see the same order.

    Args:
        trial: that was claimed.
        siblings: all trials of its job.
        retries: of the study.
    """
    others = [other for other in siblings if other.number != trial.number]
    stands = standing(others, retries)
    if stands.status in ("running", "waiting"):
        assert stands.trial is not None
        return stands.trial.number < trial.number
    return stands.status in DONE or (stands.status != DUE and not trial.user_attrs.get("asked"))


def run_name(worker: Mapping[str, Any], number: int) -> str:
    """What tells one run of a job from others, in the files that it leaves.

    Args:
        worker: identity of the one that has it trained; see `Presence`.
        number: of the trial.
    """
    return f"{worker.get('id')}:{number}"


def judged_runs(trials: Sequence[FrozenTrial]) -> set[str]:
    """The runs of a job that came to nothing by themselves, and not for want of a worker.

    Args:
        trials: all of the job.
    """
    return {
        run_name(trial.user_attrs.get("worker") or {}, trial.number)
        for trial in trials
        if trial.state == TrialState.FAIL and outcome_of(trial) not in ("lost", INTERRUPTED, VOID)
    }


def step_of(trial: FrozenTrial) -> int:
    """The last optimizer step that is known of a trial."""
    beat = trial.user_attrs.get("beat") or [0, 0, 0, 0.0]
    return int(trial.user_attrs.get("step") or beat[1])


def seconds_of(trial: FrozenTrial) -> float:
    """How long a trial has run, as far as it is known."""
    beat = trial.user_attrs.get("beat") or [0, 0, 0, 0.0]
    return float(trial.user_attrs.get("seconds") or beat[3])


def by_job(trials: Sequence[FrozenTrial]) -> dict[str, list[FrozenTrial]]:
    """Trials of each job, by its key, in order."""
    found: dict[str, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if (key := trial.user_attrs.get("job")) is not None:
            found.setdefault(key, []).append(trial)
    return found

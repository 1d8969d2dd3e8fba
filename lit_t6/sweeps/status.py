"""How a study stands, as text: while it runs, and whenever somebody asks."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import TrialState

from lit_t6.sweeps.jobs import DONE, DUE, INTERRUPTED, Job, Standing, outcome_of, seconds_of, step_of
from lit_t6.sweeps.presence import is_dead
from lit_t6.sweeps.study import Study

_BASIS = 2
"""Trials at least that an estimate of the time left rests on."""
_TELLING_SHARE = 0.25
"""Of its steps, after which a running trial tells how long it takes."""


@dataclass(frozen=True)
class Overview:
    """How a study stands.

    Args:
        study: that is meant.
        rows: each job, and how it stands.
    """

    study: Study
    rows: Sequence[tuple[Job, Standing]]

    @property
    def counts(self) -> dict[str, int]:
        """Jobs that are completed, running, pruned, failed and waiting."""
        names = {"completed": "done", "pruned": "pruned", "running": "running", "waiting": "waiting", DUE: "waiting"}
        counts = dict.fromkeys(("done", "running", "pruned", "failed", "waiting"), 0)
        for _, stands in self.rows:
            counts[names.get(stands.status, "failed")] += 1
        return counts

    @property
    def failed(self) -> list[tuple[Job, Standing]]:
        """Jobs that are given up."""
        return [(job, stands) for job, stands in self.rows if stands.is_over and stands.status not in DONE]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return all(stands.is_over for _, stands in self.rows)

    def best(self) -> tuple[str, float, int] | None:
        """The best cell so far, the mean of its values, and how many they are; of a search, the best trial."""
        values: dict[str, list[float]] = {}
        for job, stands in self.rows:
            if stands.status == "completed" and stands.trial is not None and stands.trial.value is not None:
                values.setdefault(job.cell, []).append(stands.trial.value)
        means = {cell: statistics.fmean(found) for cell, found in values.items()}
        if not means:
            return None
        choose = min if self.study.objective.direction == "minimize" else max
        cell = choose(means, key=lambda name: means[name])
        return cell, means[cell], len(values[cell])

    def seconds_left(self) -> float | None:
        """About how long it will take, as many trials at a time as now; None as long as too little tells.

        What tells is trials that completed, and such as run and have come some way; one alone may be unlike the others,
        unless others have ended, however they did. Where nothing better tells, the last trials are taken to be like
        those that failed or were pruned.
        """
        running = [stands for _, stands in self.rows if stands.status == "running"]
        waiting = sum(stands.status in ("waiting", DUE) for _, stands in self.rows)
        if not running:
            return None
        whole = [_spent(stands) for _, stands in self.rows if stands.status == "completed" and stands.trial is not None]
        totals = [seconds for stands in running if (seconds := _estimate(stands)) is not None]
        ended = [_spent(stands) for _, stands in self.rows if stands.is_over and stands.status != "completed"]
        if len(whole) + len(totals) + len(ended) < min(_BASIS, len(self.rows)):
            return None
        if not (whole or totals) and waiting:
            return None  # what ended early says little of many that will not
        mean = statistics.fmean(whole or totals or ended)
        left = waiting * mean
        for stands in running:
            total = _estimate(stands)
            left += max(0.0, (mean if total is None else total) - _spent(stands))
        if not (whole or totals or left):
            return None  # longer under way than all that ended
        return left / len(running)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        best = self.best()
        return {
            "study": self.study.name,
            **self.counts,
            "best": None if best is None else {"cell": best[0], "value": best[1], "trials": best[2]},
            "seconds_left": self.seconds_left(),
            "trials": [_row(job, stands) for job, stands in self.rows],
        }


def overview(study: Study, jobs: Mapping[str, Job], standings: Mapping[str, Standing]) -> Overview:
    """How a study stands, from how its jobs stand."""
    return Overview(study, [(job, standings[key]) for key, job in jobs.items()])


def of_the_living(standings: Mapping[str, Standing]) -> dict[str, Standing]:
    """How jobs stand where nobody gives up the trials of dead workers: those that ran are waiting for the next `run`.

    Args:
        standings: of jobs, as the storage has them.
    """
    return {
        key: replace(stands, status="waiting")
        if stands.status == "running" and stands.trial and is_dead(stands.trial.user_attrs.get("worker"))
        else stands
        for key, stands in standings.items()
    }


def _spent(stands: Standing) -> float:
    """Seconds that a job has taken; steps of earlier attempts, which a trial goes on from, took theirs."""
    trial = stands.trial
    return stands.seconds + (0.0 if trial is None or trial in stands.failures else seconds_of(trial))


def _estimate(stands: Standing) -> float | None:
    """How long a running trial will take in all; None as long as its beginning weighs most."""
    _, step, of, _ = (stands.trial and stands.trial.user_attrs.get("beat")) or (0, 0, 0, 0.0)
    return _spent(stands) * of / step if of and step >= _TELLING_SHARE * of else None


_GOES_ON = (INTERRUPTED, "lost", "timed_out")
"""Outcomes of trials that were not at their end."""
_NO_REASON = ("waiting", "running", "completed")
"""A trial that completed while its worker was given up has one, too, and it is of no interest."""


def _row(job: Job, stands: Standing) -> dict[str, Any]:
    trial = stands.trial
    worker = (trial.user_attrs.get("worker") or {}) if trial else {}
    status = "waiting" if stands.status == DUE else stands.status
    reason = trial.user_attrs.get("reason") or "" if trial and status not in _NO_REASON else ""
    return {
        "trial": job.key,
        "cell": job.cell,
        "seed": job.seed,
        "status": status,
        "value": trial.values[0] if trial is not None and trial.values else None,
        "step": (stands.step or None) if status == "waiting" else step_of(trial) if trial is not None else None,
        "seconds": seconds_of(trial) + stands.seconds * (trial not in stands.failures) if trial else 0.0,
        "attempts": _attempts(stands),
        "reason": _what_follows(stands) if status == "waiting" else reason,
        "remark": (trial.user_attrs.get("remark") or "") if trial and status == "completed" else "",
        "worker": f"{worker['host']}:{worker['pid']}" if worker and status == "running" else "",
        "parameters": trial.params if trial else {},
    }


def _attempts(stands: Standing) -> int:
    """How often a job was begun, as the record of its last trial says it."""
    trial = stands.trial
    if trial is None or trial.state == TrialState.WAITING:
        return stands.attempts
    own = stands.attempts + (trial.state != TrialState.FAIL)
    return max(own, int(trial.user_attrs.get("attempts") or 0))  # more, where the storage of earlier ones is lost


def _what_follows(stands: Standing) -> str:
    """What has become of a job that waits, and was begun before; empty where it was not."""
    if stands.trial is not None and stands.trial.state == TrialState.RUNNING:
        outcome, what = "lost", "its worker is gone"
    elif stands.past:
        outcome = outcome_of(stands.past[-1])
        what = outcome.replace("_", " ")
    else:
        return ""
    goes_on = stands.step and outcome in _GOES_ON
    return f"{what}; it goes on from its last save" if goes_on else f"{what}; it is tried again"


def summary(of: Overview) -> list[str]:
    """A study in two lines: how many of what, the time left, and the best so far."""
    counts = ", ".join(f"{number} {name}" for name, number in of.counts.items())
    left = of.seconds_left()
    told = f"; about {duration(left)} left" if left else ""
    if left is None and of.counts["running"]:
        told = "; time left: estimating"
    lines = [f"{of.study.name}: {len(of.rows)} trials: {counts}{told}"]
    if best := of.best():
        cell, value, number = best
        of_several = f", mean of {number} seeds" if number > 1 else ""
        lines.append(f"best so far: {cell}, {of.study.objective.metric} {value:.4f}{of_several}")
    return lines


def table(of: Overview, most: int | None = None) -> list[str]:
    """Every trial, a line each.

    Args:
        of: the study.
        most: lines; those that run, failed or ended last are shown then.
    """
    rows = [_row(job, stands) for job, stands in of.rows]
    if most is not None and len(rows) > most:
        interest = {"running": 0, "waiting": 3, "completed": 2, "pruned": 2}
        chosen = sorted(rows, key=lambda row: interest.get(row["status"], 1))[: max(0, most)]
        rows = [row for row in rows if row in chosen]
    metric = of.study.objective.metric
    heads = ("cell", "seed", "status", metric, "step", "attempts", "time", "")
    cells = [heads, *(_shown(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads) - 1)]
    right = (False, True, False, True, True, True, True)
    found = []
    for line in cells:
        texts = [
            text.rjust(width) if at_right else text.ljust(width)
            for text, width, at_right in zip(line, widths, right, strict=False)
        ]
        found.append("  ".join([*texts, line[-1]]).rstrip())
    return found


def _shown(row: Mapping[str, Any]) -> tuple[str, ...]:
    value = "" if row["value"] is None else f"{row['value']:.4f}"
    step = "" if row["step"] is None else f"{row['step']:,}"
    attempts = str(row["attempts"]) if row["attempts"] else ""
    spent = duration(row["seconds"]) if row["seconds"] else ""
    parameters = ", ".join(f"{name}={value}" for name, value in row["parameters"].items())
    about = row["reason"] or row["worker"] or "; ".join(filter(None, [parameters, row["remark"]]))
    return row["cell"], str(row["seed"]), row["status"], value, step, attempts, spent, about


def duration(seconds: float) -> str:
    """A time in words: "42 s", "3.5 min", "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours / 24:.1f} days"


def at_now(line: str) -> str:
    """What has just happened, with the time."""
    return f"{time.strftime('%H:%M:%S')}  {line}"


class Events:
    """Tells of what has changed since it was last asked."""

    def __init__(self) -> None:
        self._before: dict[str, Standing] = {}

    def since(self, now: Overview) -> list[str]:
        """A line for each trial that began or ended, in any process; none at the first time."""
        before, self._before = self._before, {job.key: stands for job, stands in now.rows}
        found = [(job, before[job.key], stands) for job, stands in now.rows if job.key in before]
        return [at_now(f"{job.key}: {said}") for job, old, new in found for said in _changes(now.study, job, old, new)]


def _changes(study: Study, job: Job, old: Standing, new: Standing) -> Iterator[str]:
    """What has become of a job since."""
    row = _row(job, new)
    for trial in new.past[len(old.past) :]:
        what = outcome_of(trial).replace("_", " ")
        why = trial.user_attrs.get("reason") or "its worker gave no sign of life"
        is_last = new.is_over and new.status not in DONE
        yield f"{what}: {why}" if is_last else f"{what}: {why.rstrip('.')}; it is tried again"
    if new.trial is None or (
        old.trial is not None and (old.status, old.trial.number) == (new.status, new.trial.number)
    ):
        return
    if new.status == "running":
        yield f"begins (attempt {row['attempts']})" if row["attempts"] > 1 else "begins"
    elif new.status == "completed":
        remark = f"; {row['remark']}" if row["remark"] else ""
        yield f"{study.objective.metric} {row['value']:.4f}, after {duration(row['seconds'])}{remark}"
    elif new.status == "pruned":
        yield f"{row['reason']}, after {duration(row['seconds'])}"

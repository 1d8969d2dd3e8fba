"""What became of the trials of a study, cell by cell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lit_t6.sweeps.cells import HEADS, Cell, plain_cells
from lit_t6.sweeps.jobs import Job, jobs_of
from lit_t6.sweeps.records import finite
from lit_t6.sweeps.report.statistics import Difference, Estimate, estimate, holm, paired
from lit_t6.sweeps.study import Study

UNFINISHED = "unfinished"
"""Outcome of a trial that has not ended, or of which nothing is known."""


@dataclass(frozen=True)
class Spent:
    """Seconds of computing that a job took.

    Args:
        all: of all its attempts.
        in_vain: of those that failed, were killed, or were interrupted; the next one goes on from their last save.
    """

    all: float
    in_vain: float


@dataclass(frozen=True)
class Trial:
    """A trial, as its record tells.

    Args:
        job: what it trained.
        outcome: completed, pruned, one of REASONS, or UNFINISHED.
        record: from `lit_t6.sweeps.records`; empty of one that is unfinished.
        spent: by all its attempts; None where only a record is there, which knows the last one.
    """

    job: Job
    outcome: str
    record: Mapping[str, Any] = field(default_factory=dict)
    spent: Spent | None = None

    @property
    def seconds(self) -> float | None:
        """Of all attempts that are known of."""
        return self.record.get("seconds") if self.spent is None else round(self.spent.all, 3)

    @property
    def value(self) -> float | None:
        """Of the objective, at the end; of a trial that was pruned, at its last report."""
        return self.record.get("value")

    @property
    def facts(self) -> Mapping[str, Any]:
        """Sizes of its model, and its device."""
        return self.record.get("facts") or {}

    def metric(self, tag: str) -> float | None:
        """The last value of a recorded figure; None of what is no number, which has no mean."""
        return finite((self.record.get("metrics") or {}).get(tag))


@dataclass(frozen=True)
class CellFindings:
    """A cell with its trials.

    Args:
        name: of the cell.
        trials: one a seed.
        options: dotted options of `fit` that it sets, without head counts that were solved.
        configs: names of the files of `fit` that it brings.
        setting: of a trial of a search, what it tried, in short.
        value: mean of the objective over the seeds that completed.
        difference: to the baseline, by seed.
    """

    name: str
    trials: tuple[Trial, ...]
    options: Mapping[str, Any]
    configs: tuple[str, ...] = ()
    setting: str = ""
    value: Estimate | None = None
    difference: Difference | None = None

    @property
    def completed(self) -> tuple[Trial, ...]:
        """Its trials that count."""
        return tuple(trial for trial in self.trials if trial.outcome == "completed" and trial.value is not None)

    @property
    def by_seed(self) -> dict[int, float]:
        """The objective of those trials."""
        return {trial.job.seed: trial.value for trial in self.completed if trial.value is not None}

    def fact(self, name: str) -> Any:
        """A size of its model, such as "num_parameters"; None if no trial came so far as to tell."""
        return next((trial.facts[name] for trial in self.trials if trial.facts.get(name) is not None), None)

    def figure(self, tag: str) -> Estimate | None:
        """Mean of a recorded figure over the trials that completed."""
        return estimate([value for trial in self.completed if (value := trial.metric(tag)) is not None])

    def outcomes(self) -> str:
        """Completed trials of all, and what became of the others: "2/3 (1 diverged)"."""
        others = Counter(trial.outcome for trial in self.trials if trial.outcome != "completed")
        told = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in others.items())
        return f"{len(self.trials) - others.total()}/{len(self.trials)}{f' ({told})' if told else ''}"


@dataclass(frozen=True)
class Findings:
    """All that a study found.

    Args:
        study: that was asked.
        cells: in the study's order; of a search one a trial.
        left_out: in words, what was trained and is not asked for; see `gather`.
        matched_to: the cell by which head counts were solved, where it is not the study's baseline.
    """

    study: Study
    cells: tuple[CellFindings, ...]
    left_out: str = ""
    matched_to: str = ""

    @property
    def trials(self) -> list[Trial]:
        """All trials, cell by cell."""
        return [trial for cell in self.cells for trial in cell.trials]

    @property
    def outcomes(self) -> Counter[str]:
        """How many trials came to what."""
        return Counter(trial.outcome for trial in self.trials)

    def ranked(self) -> list[CellFindings]:
        """The cells that have a value, the best first."""
        sign = 1 if self.study.objective.direction == "minimize" else -1
        found = [(sign * cell.value.mean, cell) for cell in self.cells if cell.value is not None]
        return [cell for _, cell in sorted(found, key=lambda pair: pair[0])]

    @property
    def best(self) -> CellFindings | None:
        """The best of several cells that have a value; None where there is none to be better than."""
        ranked = self.ranked()
        return ranked[0] if len(ranked) > 1 else None

    def label(self, cell: CellFindings) -> str:
        """A cell's name in tables and figures; the baseline is said to be it."""
        return f"{cell.name} (baseline)" if cell.name == self.study.baseline else cell.name

    def pareto(self) -> list[CellFindings]:
        """The cells that no other one beats in both, objective and bytes cached of a token; fewest bytes first."""
        best: list[CellFindings] = []
        means = {cell.name: cell.value.mean for cell in self.ranked() if cell.value is not None}
        ranks = {mean: rank for rank, mean in enumerate(dict.fromkeys(means.values()))}  # equal means have one rank
        places = {name: ranks[mean] for name, mean in means.items()}
        sized = [cell for cell in self.ranked() if cell.fact("cache_bytes_per_token") is not None]
        for cell in sorted(sized, key=lambda cell: (cell.fact("cache_bytes_per_token"), places[cell.name])):
            if not best or places[cell.name] < places[best[-1].name]:
                best.append(cell)
        return best

    @property
    def recorded(self) -> list[str]:
        """Tags of the figures beside the objective of which some trial has a value."""
        tags = [tag for tag in self.study.record if tag != self.study.objective.metric]
        return [tag for tag in tags if any(trial.metric(tag) is not None for trial in self.trials)]


def findings(
    study: Study, records: Mapping[str, Mapping[str, Any]], spent: Mapping[str, Spent] | None = None
) -> Findings:
    """Put the records of trials together.

    Args:
        study: whose trials they are.
        records: of the trials that have ended, by job.
        spent: by each job, all attempts together, where that is known.
    """
    written = {cell.name: cell for cell in plain_cells(study)}
    by_cell: dict[str, list[Trial]] = {}
    for job in jobs_of(study):
        record = records.get(job.key)
        outcome = UNFINISHED if record is None else str(record["outcome"])
        trial = Trial(job, outcome, record or {}, (spent or {}).get(job.key))
        by_cell.setdefault(job.cell, []).append(trial)
    cells = [_cell(study, written.get(name), name, trials) for name, trials in by_cell.items()]
    cells = [replace(cell, value=estimate(list(cell.by_seed.values()))) for cell in cells]
    base = next((cell for cell in cells if cell.name == study.baseline), None)
    return Findings(study, tuple(cells if base is None else _compared(cells, base)))


def _cell(study: Study, written: Cell | None, name: str, trials: Sequence[Trial]) -> CellFindings:
    """A cell as the study has it; of a search, as its trial tells."""
    setting = ""
    if written is not None:
        options, configs = written.options, [str(path) for path in written.configs]
    else:
        record = next((trial.record for trial in trials if trial.record.get("options")), {})
        solved = (HEADS,) if study.match == "parameters" else ()
        options = {key: value for key, value in (record.get("options") or {}).items() if key not in solved}
        configs = record.get("configs") or []
        setting = ", ".join(map(_in_short, (record.get("params") or {}).items()))
    return CellFindings(name, tuple(trials), options, tuple(Path(config).stem for config in configs), setting)


def _in_short(parameter: tuple[str, Any]) -> str:
    name, value = parameter
    shown = f"{value:.3g}" if isinstance(value, float) else str(value)
    return shown if isinstance(value, str) else f"{name.rpartition('.')[2]}={shown}"


def _compared(cells: Sequence[CellFindings], base: CellFindings) -> list[CellFindings]:
    found = {cell.name: paired(cell.by_seed, base.by_seed) for cell in cells if cell is not base}
    corrected = holm({name: each.p for name, each in found.items() if each is not None and each.p is not None})
    return [
        replace(cell, difference=replace(each, corrected=corrected.get(cell.name)))
        if (each := found.get(cell.name)) is not None
        else cell
        for cell in cells
    ]

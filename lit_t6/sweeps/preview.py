"""What a study would train, and what that would take: the dry run of `cli.py sweep run`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_t6.sweeps.cells import Cell
from lit_t6.sweeps.checking import check_data, check_study
from lit_t6.sweeps.rates import Rate, measured_rate, rate_of_finished, stated_rate
from lit_t6.sweeps.study import Study
from lit_t6.training.planning.facts import Facts, facts_from
from lit_t6.training.planning.fit_reader import FitReader
from lit_t6.training.planning.memory import EXPLANATION, memory_of


@dataclass(frozen=True)
class Row:
    """A cell, before it is trained.

    Args:
        cell: of the study; of a search, a setting at its borders.
        facts: of the cell.
        share: its parameters over those aimed at; None where nothing is matched.
        seconds: estimated, of one trial that no limit ends; None where its budget or the rate is not known.
        memory_gib: estimated, of tensors on each device.
    """

    cell: Cell
    facts: Facts
    share: float | None
    seconds: float | None
    memory_gib: float


@dataclass(frozen=True)
class Preview:
    """A study, before it is trained.

    Args:
        study: that was looked at.
        rows: a cell each.
        rate: what times are estimated from; None where nothing is known.
        workers: trials at a time.
        aimed_at: parameters that head counts were solved for.
        complaint: what is wrong with the data; empty if nothing is.
        on_cpu: whether the trials are trained on CPUs.
    """

    study: Study
    rows: tuple[Row, ...]
    rate: Rate | None
    workers: int
    aimed_at: int | None
    complaint: str
    on_cpu: bool

    @property
    def seconds(self) -> float | None:
        """Estimated, of the whole study, no trial of which is ended by its limit."""
        known = [row.seconds for row in self.rows if row.seconds is not None]
        if len(known) < len(self.rows):
            return None
        return sum(known) / len(known) * self.study.num_runs / min(self.workers, self.study.num_runs)

    def is_too_long(self, row: Row) -> bool:
        """Whether a trial of this cell would not be at its end when its time is over."""
        limit = self.study.time_limit
        return limit is not None and row.seconds is not None and row.seconds > limit


def preview(
    study: Study,
    workers: int = 1,
    folder: Path | None = None,
    flops_per_second: float | None = None,
    reader: FitReader | None = None,
) -> Preview:
    """Look at a study.

    Args:
        study: to look at.
        workers: trials that would go on at a time.
        folder: of the study, where finished trials may tell how long one takes.
        flops_per_second: a rate that is known; else it is measured here, if the device is there.
        reader: of options of `fit`; made, which takes seconds, if not given.

    Raises:
        ValueError: what is wrong with it, as before a real run; but for data that is not there, which is noted.
    """
    read = check_study(study, reader)
    complaint = ""
    try:
        check_data(study, read)
    except ValueError as error:
        complaint = str(error)
    facts = [facts_from(settings) for _, settings in read]
    names = [cell.name for cell, _ in read]
    flops = {name: fact.flops for name, fact in zip(names, facts, strict=True)}
    settings = read[0][1]
    rate = rate_of_finished(folder, flops) if folder else None
    if flops_per_second is not None:
        rate = stated_rate(flops_per_second)
    rate = rate or measured_rate(settings, workers)
    aimed_at = _aimed_at(study, names, facts)
    rows = tuple(
        Row(
            cell,
            fact,
            None if aimed_at is None else fact.num_parameters / aimed_at,
            _seconds(study, cell, fact, rate),
            memory_of(settings) / 2**30,
        )
        for (cell, settings), fact in zip(read, facts, strict=True)
    )
    return Preview(study, rows, rate, workers, aimed_at, complaint, settings.on_cpu)


def _seconds(study: Study, cell: Cell, facts: Facts, rate: Rate | None) -> float | None:
    """Of a trial; its devices share the work."""
    if rate is None or facts.flops is None:
        return None
    return rate.estimate(cell.name, facts.flops / (1 if rate.finished else study.gpus_per_trial))


def _aimed_at(study: Study, names: Sequence[str], facts: Sequence[Facts]) -> int | None:
    if study.match == "none":
        return None
    return study.match_to or facts[names.index(study.baseline)].num_parameters


def plain_preview(seen: Preview) -> dict[str, Any]:
    """It in plain numbers, units in the names."""
    return {
        "study": seen.study.name,
        "num_trials": seen.study.num_runs,
        "aimed_at_parameters": seen.aimed_at,
        "time_estimated_from": seen.rate.origin if seen.rate else None,
        "memory_estimated_from": EXPLANATION,
        "seconds": seen.seconds,
        "time_limit_seconds": seen.study.time_limit,
        "workers": seen.workers,
        "complaint": seen.complaint or None,
        "cells": [
            {
                "cell": row.cell.name,
                "options": dict(row.cell.options),
                "configs": [str(path) for path in row.cell.configs],
                **asdict(row.facts),
                "parameters_over_aimed_at": row.share,
                "seconds": row.seconds,
                "exceeds_time_limit": seen.is_too_long(row),
                "memory_gib": row.memory_gib,
            }
            for row in seen.rows
        ],
    }

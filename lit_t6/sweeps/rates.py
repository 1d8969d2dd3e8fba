"""How long trials take: by finished ones, a rate that is stated, or a few steps that are measured here."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_t6.training.planning.fit_reader import FitSettings
from lit_t6.training.planning.speed import measured_speed

START_SECONDS = 6.0
"""From the start of a process to its first step, roughly; on a GPU, compiling comes on top."""
_AND_A_START = f", and {START_SECONDS:.0f} s for the start of a process"


@dataclass(frozen=True)
class Rate:
    """How fast trials go.

    Args:
        flops_per_second: of training steps, by our formula.
        start_seconds: of a trial, before its first step and after its last.
        origin: what these are from, for people.
        seconds: of whole trials, of cells that have finished ones.
        finished: whether it is from finished trials, and so of all devices of a trial.
    """

    flops_per_second: float
    start_seconds: float
    origin: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    finished: bool = False

    def estimate(self, cell: str, flops: float) -> float:
        """Seconds of one trial of a cell."""
        return self.seconds[cell] if cell in self.seconds else self.start_seconds + flops / self.flops_per_second


def stated_rate(flops_per_second: float) -> Rate:
    """A rate that somebody knows.

    Raises:
        ValueError: it is not above 0.
    """
    if not flops_per_second > 0:
        raise ValueError(f"rate: expected FLOP/s above 0, such as 2.5e14, got {flops_per_second}.")
    return Rate(flops_per_second, START_SECONDS, f"{flops_per_second:.3g} FLOP/s as stated{_AND_A_START}")


def rate_of_finished(folder: Path, flops: Mapping[str, float | None]) -> Rate | None:
    """The rate of the completed trials of a study; None if there are none.

    Args:
        folder: of the study: CELL/seed-S/trial.json below it says what became of a trial, and its seconds.
        flops: of a trial of each cell; a trial of none of these, as in a search, is taken for the median of them.
    """
    budgets = [budget for budget in flops.values() if budget]
    trials = [read for path in sorted(folder.glob("*/*/trial.json")) if (read := _read_finished(path))]
    if not trials or not budgets:
        return None
    by_cell: dict[str, list[float]] = {}
    rates = []
    for cell, seconds in trials:
        by_cell.setdefault(cell, []).append(seconds)
        at_work = max(seconds - START_SECONDS, seconds / 2)
        rates.append((flops.get(cell) or statistics.median(budgets)) / at_work)
    origin = f"{len(trials)} finished trial{'s' if len(trials) > 1 else ''} of this study"
    medians = {cell: statistics.median(found) for cell, found in by_cell.items()}
    return Rate(statistics.median(rates), START_SECONDS, origin, medians, finished=True)


def _read_finished(path: Path) -> tuple[str, float] | None:
    """Cell and seconds of a completed trial."""
    try:
        trial: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return (str(trial["cell"]), float(trial["seconds"])) if trial["outcome"] == "completed" else None
    except (OSError, ValueError, KeyError, TypeError):  # of another version: no time is known of it
        return None


def measured_rate(settings: FitSettings, workers: int = 1) -> Rate | None:
    """The rate of a few training steps, taken here and now; see `measured_speed`.

    Args:
        settings: of a cell.
        workers: trials that go on at once.

    Returns:
        None where the training wants a GPU and there is none.
    """
    speed = measured_speed(settings, workers)
    return speed and Rate(speed.flops_per_second, START_SECONDS, f"{speed.origin}{_AND_A_START}")

"""Which parameters of a search mattered."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_t6.sweeps.report.findings import Findings

_BINS = 4


@dataclass(frozen=True)
class Importance:
    """How much of the objective's variance a parameter explains by itself.

    Args:
        name: of the parameter.
        trials: completed ones that have it, among which the variance is.
        share: from 0 to 1.
    """

    name: str
    trials: int
    share: float


def importances(found: Findings) -> list[Importance]:
    """The parameters of a search, the most important first.

    The share is ε² of a one-way analysis of variance: that between groups of trials with the same value, or of numbers
    with more than so many values, those in the same quarter, less what chance alone would put there. It is of one
    parameter at a time, so it knows no interactions, and of the trials that have it: a condition, or a sampler that
    went where it was good, leaves less to vary.
    """
    sought: dict[str, list[tuple[object, float]]] = {p.name: [] for p in found.study.search or ()}
    for trial in found.trials:
        if trial.outcome == "completed" and trial.value is not None:
            for name, value in (trial.record.get("params") or {}).items():
                sought.setdefault(name, []).append((value, trial.value))
    shares = [Importance(name, len(pairs), _explained(pairs)) for name, pairs in sought.items() if len(pairs) > 1]
    return sorted(shares, key=lambda each: -each.share)


def _explained(pairs: Sequence[tuple[object, float]]) -> float:
    groups: dict[object, list[float]] = {}
    bin_of = _bins([value for value, _ in pairs])
    for (_, result), name in zip(pairs, bin_of, strict=True):
        groups.setdefault(name, []).append(result)
    count, mean = len(pairs), math.fsum(result for _, result in pairs) / len(pairs)
    total = math.fsum((result - mean) ** 2 for _, result in pairs)
    within = math.fsum((result - math.fsum(group) / len(group)) ** 2 for group in groups.values() for result in group)
    if total == 0 or len(groups) == 1 or count <= len(groups):
        return 0.0
    by_chance = (len(groups) - 1) * within / (count - len(groups))
    return max(0.0, (total - within - by_chance) / total)


def _bins(values: Sequence[object]) -> list[object]:
    """The group of each value: itself, or of numbers of many values its quarter; equal values stay together."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values) or len(set(numbers)) <= _BINS:
        return [repr(value) for value in values]
    order = sorted(numbers)
    return [order.index(value) * _BINS // len(order) for value in numbers]

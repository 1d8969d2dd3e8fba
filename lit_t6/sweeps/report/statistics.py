"""Means and differences with their uncertainty: Student's t, paired differences, Holm's correction."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

CONFIDENCE = 0.95
LEVEL = 0.05
"""Of tests."""
_Name = TypeVar("_Name")


@dataclass(frozen=True)
class Estimate:
    """A mean of several values. Of a single one there is neither deviation nor interval.

    Args:
        count: values.
        mean: of them.
        deviation: standard deviation of the sample, over count − 1.
        low: lower end of the interval of 95 % by Student's t, in which the mean of all seeds there are lies.
        high: its upper end.
    """

    count: int
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean, deviation and interval of values; None if there is none."""
    if not values:
        return None
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Estimate(1, mean)
    deviation = statistics.stdev(values)
    half = t_quantile(0.5 + CONFIDENCE / 2, count - 1) * deviation / math.sqrt(count)
    return Estimate(count, mean, deviation, mean - half, mean + half)


@dataclass(frozen=True)
class Difference:
    """Of two cells, by the seeds that both completed.

    Args:
        of: the differences' mean, deviation and interval.
        p: of the two-sided paired t-test; None of a single pair.
        corrected: the same after Holm's correction for all comparisons of the table.
    """

    of: Estimate
    p: float | None
    corrected: float | None = None


def paired(values: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """Differences by seed; None without a seed in common.

    Args:
        values: of a cell, by seed.
        base: of the cell that it is compared with.
    """
    found = estimate([value - base[seed] for seed, value in sorted(values.items()) if seed in base])
    if found is None:
        return None
    if found.deviation is None:
        return Difference(found, None)
    if found.deviation == 0:  # trainings that are the same, or differ by the same at every seed
        return Difference(found, 1.0 if found.mean == 0 else 0.0)
    t = found.mean / (found.deviation / math.sqrt(found.count))
    return Difference(found, two_sided(t, found.count - 1))


def holm(ps: Mapping[_Name, float]) -> dict[_Name, float]:
    """P-values corrected for their number: the chance of any false alarm among them stays below the level."""
    corrected: dict[_Name, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in ps}


def two_sided(t: float, freedom: int) -> float:
    """The chance that Student's t is farther from zero than `t`.

    Args:
        t: of the test.
        freedom: degrees of freedom.
    """
    square = t * t
    if square < freedom:  # the argument is near one, where little of a small t is left
        return 1 - _incomplete_beta(square / (freedom + square), 0.5, freedom / 2)
    return _incomplete_beta(freedom / (freedom + square), freedom / 2, 0.5)


def t_quantile(probability: float, freedom: int) -> float:
    """The value below which Student's t lies with a probability of at least one half.

    Args:
        probability: from 0.5 to below 1.
        freedom: degrees of freedom.
    """
    wanted = 2 * (1 - probability)
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > wanted:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if two_sided(middle, freedom) > wanted else (low, middle)
    return high


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side alone
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    fraction = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return front * fraction / a

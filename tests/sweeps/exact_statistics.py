"""Student's t in fifty digits."""

from typing import NamedTuple

import mpmath

DIGITS = 50


class Exact(NamedTuple):
    """Of paired differences: the p-value, and the ends of the interval of 95 %."""

    p: float
    low: float
    high: float


def _tail(t, freedom):
    """The chance of a number beyond t, on both sides."""
    return mpmath.betainc(mpmath.mpf(freedom) / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True)


def exact_two_sided(t, freedom):
    with mpmath.workdps(DIGITS):
        return float(_tail(mpmath.mpf(t), freedom))


def exact_difference(values, base):
    """Of values and those that they are compared with, in order."""
    with mpmath.workdps(DIGITS):
        apart = [mpmath.mpf(value) - mpmath.mpf(other) for value, other in zip(values, base, strict=True)]
        count = len(apart)
        mean = mpmath.fsum(apart) / count
        error = mpmath.sqrt(mpmath.fsum((x - mean) ** 2 for x in apart) / (count - 1) / count)
        quantile = mpmath.findroot(lambda t: _tail(t, count - 1) - mpmath.mpf("0.05"), (1.9, 13), solver="anderson")
        low, high = mean - quantile * error, mean + quantile * error
        return Exact(float(_tail(abs(mean / error), count - 1)), float(low), float(high))

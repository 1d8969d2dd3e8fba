import math

import pytest

from lit_t6.sweeps.report.statistics import estimate, holm, paired, t_quantile, two_sided

from .exact_statistics import exact_difference, exact_two_sided


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706204736), (2, 4.302652730), (3, 3.182446305), (9, 2.262157163), (30, 2.042272456), (1000, 1.962339081)],
)
def test_quantiles_are_those_of_tables(freedom, quantile):
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-9)


def test_the_median_is_zero():
    assert t_quantile(0.5, 3) == pytest.approx(0, abs=1e-7)


def test_of_one_degree_of_freedom_the_tail_has_a_formula():
    for t in (0.0, 0.3, 1.0, 4.0, 1e3, 1e8):
        assert two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-6, abs=1e-12)


def test_by_hand():
    of = estimate([1.0, 2.0, 3.0])  # deviation 1, standard error 1 / √3, t of 2 degrees 4.30265
    assert (of.count, of.mean, of.deviation) == (3, 2.0, 1.0)
    assert of.low == pytest.approx(2 - 4.302652730 / math.sqrt(3))
    assert of.high == pytest.approx(2 + 4.302652730 / math.sqrt(3))
    difference = paired({0: 2.0, 1: 4.0, 2: 6.0, 9: 7.0}, {0: 1.0, 1: 2.0, 2: 3.0, 8: 0.0})  # 1, 2, 3
    assert difference.of == of
    assert difference.p == pytest.approx(0.074179900, rel=1e-7)  # t = 2√3


def test_against_fifty_digits():
    values, base = [1.05, 1.14, 1.27, 1.18, 1.2], [1.0, 1.1, 1.2, 1.14, 1.19]
    difference = paired(dict(enumerate(values)), dict(enumerate(base)))
    exact = exact_difference(values, base)
    assert difference.p == pytest.approx(exact.p, rel=1e-12)
    assert (difference.of.low, difference.of.high) == pytest.approx((exact.low, exact.high), rel=1e-12)
    of, itself = estimate(values), exact_difference(values, [0.0] * 5)
    assert (of.low, of.high) == pytest.approx((itself.low, itself.high), rel=1e-12)
    for freedom in (1, 2, 5, 40, 999):
        for probability in (0.6, 0.9, 0.975, 0.9999):
            quantile = t_quantile(probability, freedom)
            assert exact_two_sided(quantile, freedom) == pytest.approx(2 * (1 - probability), rel=1e-11)
        for t in (1e-6, 0.5, 3.0, 40.0):
            assert two_sided(t, freedom) == pytest.approx(exact_two_sided(t, freedom), rel=1e-11)


def test_one_value_has_no_interval_and_none_no_mean():
    assert (estimate([2.0]).mean, estimate([2.0]).low) == (2.0, None)
    assert estimate([]) is None
    assert paired({0: 1.0}, {1: 1.0}) is None
    assert paired({0: 1.0}, {0: 0.5}).p is None


def test_equal_trainings_differ_by_nothing():
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p == 1.0
    assert paired({0: 1.5, 1: 2.5}, {0: 1.0, 1: 2.0}).p == 0.0


def test_holm():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}

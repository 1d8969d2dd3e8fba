import pytest
import torch

from lit_t6.testing import assert_as_exact_as


def test_accepts_rounding_and_refuses_more():
    exact = torch.randn(1000, dtype=torch.float64)
    low = exact.bfloat16()
    assert_as_exact_as(low, low, exact)
    with pytest.raises(AssertionError, match="error by mean"):
        assert_as_exact_as((exact * 1.02).bfloat16(), low, exact)


def test_the_precision_of_the_arithmetic_counts_where_the_result_is_wider():
    exact = torch.randn(1000, dtype=torch.float64)
    wide, rounded = exact.float(), exact.bfloat16().float()
    assert_as_exact_as(rounded, wide, exact, precision=torch.bfloat16)
    with pytest.raises(AssertionError, match="error by mean"):
        assert_as_exact_as(rounded, wide, exact)


def test_one_wrong_number_among_many_is_seen():
    exact = torch.randn(1_000_000, dtype=torch.float64)
    low = exact.bfloat16()
    wrong = low.clone()
    wrong[12345] += 1.0
    with pytest.raises(AssertionError, match="error by"):
        assert_as_exact_as(wrong, low, exact)


def test_a_wrong_row_among_many_is_seen():
    exact = torch.randn(2000, 64, dtype=torch.float64)
    low = exact.bfloat16()
    wrong = low.clone()
    wrong[77] += 0.1 * torch.randn(64).bfloat16()
    with pytest.raises(AssertionError, match="error by row"):
        assert_as_exact_as(wrong, low, exact)


def test_nan_and_other_shapes_are_refused():
    exact = torch.ones(3, dtype=torch.float64)
    with pytest.raises(AssertionError, match="not finite"):
        assert_as_exact_as(torch.tensor([1.0, float("nan"), 1.0]), exact.float(), exact)
    with pytest.raises(AssertionError, match="shape"):
        assert_as_exact_as(torch.ones(4), torch.ones(4), exact)


def test_a_difference_of_larger_terms_may_be_off_by_their_last_place():
    """Where the reference takes it exactly, and nothing is left of it."""
    zeros = torch.zeros(4, 4)
    off = zeros + 1e-7
    assert_as_exact_as(off, zeros, zeros.double(), terms=1.0)
    with pytest.raises(AssertionError, match="error by mean"):
        assert_as_exact_as(off, zeros, zeros.double())
    with pytest.raises(AssertionError, match="error by mean"):
        assert_as_exact_as(2 * off, zeros, zeros.double(), terms=1.0)

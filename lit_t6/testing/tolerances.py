"""Tolerances that are derived, not chosen."""

import torch
from torch import Tensor


def assert_as_exact_as(
    actual: Tensor,
    reference: Tensor,
    exact: Tensor,
    name: str = "result",
    precision: torch.dtype | None = None,
    terms: float = 0.0,
) -> None:
    """Assert that a result is as near to the truth as the precision allows.

    Its root mean square error may be twice that of the reference run in the same precision, plus one unit in the last
    place of the root mean square true number. The largest error of few numbers is too much a matter of luck for such
    a rule, but a wrong row (along the last axis) or number must not hide in the mean either: no row may be worse than
    four times, and no number than sixteen times, that tolerance, unless it is within the same rule applied to the
    largest error of a row, or of a number, in result, reference and truth.

    Args:
        actual: what is tested.
        reference: the specification, computed in the precision of `actual`.
        exact: the specification, computed in float64.
        name: for the message.
        precision: whose unit in the last place counts: that of the arithmetic, where autocast keeps its results in a
            wider type; if not given, the type of `actual`.
        terms: root mean square of the terms whose difference the result is, where it is smaller than they: a unit in
            the last place of theirs is allowed too, since the reference may take the difference where it is exact.
    """
    assert actual.shape == exact.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    assert actual.dtype == reference.dtype, f"{name}: type {actual.dtype}, expected {reference.dtype}"
    assert actual.isfinite().all(), f"{name}: not finite"
    eps = torch.finfo(precision or actual.dtype).eps
    error, reference_error = actual.double() - exact, reference.double() - exact
    allowed = 2 * _rms(reference_error) + eps * (_rms(exact) + terms)
    for what, measure, slack in (("mean", _rms, 1), ("row", _largest_row, 4), ("number", _largest, 16)):
        limit = max(slack * allowed, 2 * measure(reference_error) + eps * measure(exact))
        assert measure(error) <= limit, f"{name}: error by {what} {measure(error):.3e}, allowed {limit:.3e}"


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def _largest_row(x: Tensor) -> float:
    """Largest root mean square along the last axis."""
    return x.square().mean(dim=-1).max().sqrt().item()


def _largest(x: Tensor) -> float:
    return x.abs().max().item()

"""Tolerances that are derived, not chosen."""

import torch
from torch import Tensor


def assert_as_exact_as(actual: Tensor, reference: Tensor, exact: Tensor, name: str = "result") -> None:
    """Assert that a result is as near to the truth as the precision allows.

    Its root mean square error may be twice that of the reference run in the same precision, plus one unit in the last
    place of the root mean square true number. The largest error of few numbers is too much a matter of luck for such
    a rule, but an isolated wrong number must not hide in the mean either: no error may exceed both sixteen times that
    tolerance and twice the reference's own largest error plus one unit in the last place of the largest true number.

    Args:
        actual: what is tested.
        reference: the specification, computed in the precision of `actual`.
        exact: the specification, computed in float64.
        name: for the message.
    """
    assert actual.shape == exact.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    assert actual.dtype == reference.dtype, f"{name}: type {actual.dtype}, expected {reference.dtype}"
    assert actual.isfinite().all(), f"{name}: not finite"
    eps = torch.finfo(actual.dtype).eps
    error, reference_error = actual.double() - exact, reference.double() - exact
    allowed = 2 * _rms(reference_error) + eps * _rms(exact)
    assert _rms(error) <= allowed, f"{name}: root mean square error {_rms(error):.3e}, allowed {allowed:.3e}"
    largest_allowed = max(16 * allowed, 2 * _largest(reference_error) + eps * _largest(exact))
    assert _largest(error) <= largest_allowed, f"{name}: error {_largest(error):.3e}, allowed {largest_allowed:.3e}"


def _rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def _largest(x: Tensor) -> float:
    return x.double().abs().max().item()


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """‖actual - exact‖ / ‖exact‖ in float64."""
    return ((actual.double() - exact.double()).norm() / exact.double().norm()).item()

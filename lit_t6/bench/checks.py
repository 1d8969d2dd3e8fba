"""Whether an output is right: before it is, nobody is told how fast it came."""

from dataclasses import dataclass

from torch import Tensor

from lit_t6.testing import assert_as_exact_as

ALLOWED = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}
"""Error that a peer may have: root mean square of its difference from float64 over that of the true result."""


@dataclass
class Verdict:
    """What a check found.

    Args:
        error: root mean square of the difference, over that of the true result.
        allowed: what it might be; of our own kernels, in words.
        problem: what is wrong, or None.
    """

    error: float
    allowed: float | str
    problem: str | None


def judge(output: Tensor, exact: Tensor, reference: Tensor | None, dtype: str) -> Verdict:
    """Compare an output with the truth.

    Args:
        output: (B, H, E).
        exact: the same, computed in float64.
        reference: the same, by the specification in the type of `output`: the output must be about as exact as that
            (`lit_t6.testing.assert_as_exact_as`). Of peers, whose arithmetic is theirs, None: they may have `ALLOWED`.
        dtype: of the output, a key of `ALLOWED`.
    """
    if output.shape != exact.shape:
        problem = f"shape {tuple(output.shape)}, expected {tuple(exact.shape)}"
        return Verdict(float("nan"), ALLOWED[dtype], problem)
    difference = output.double() - exact
    error = (difference.square().mean() / exact.square().mean()).sqrt().item()
    if reference is not None:
        try:
            assert_as_exact_as(output, reference, exact, "output")
        except AssertionError as wrong:
            return Verdict(error, "as exact as the reference", str(wrong))
        return Verdict(error, "as exact as the reference", None)
    if error <= ALLOWED[dtype]:
        return Verdict(error, ALLOWED[dtype], None)
    return Verdict(error, ALLOWED[dtype], f"relative error {error:.2e}, allowed {ALLOWED[dtype]:.0e}")  # NaN too

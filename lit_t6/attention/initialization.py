"""How the input projections of a mechanism start.

The scheme matters more than the mechanism does (see README, "Initialisation"), so it is one setting for all of them.
Upstream below is the authors' public code.
"""

import math
from typing import Literal

from torch import Tensor, nn

InitScheme = Literal["upstream", "paper", "variance"]


def xavier_bound(fan_in: float, fan_out: float) -> float:
    """√(6 / (fan_in + fan_out)): the half-width of Xavier's uniform distribution."""
    return math.sqrt(6.0 / (fan_in + fan_out))


def uniform_(weight: Tensor, bound: float) -> None:
    """Fill `weight` with numbers from the uniform distribution on [-bound, bound]."""
    nn.init.uniform_(weight, -bound, bound)


def variance_bound(entry_variance: float, fan_in: int) -> float:
    """Half-width of the uniform weights whose products with inputs of unit mean square have this variance."""
    return math.sqrt(3.0 * entry_variance / fan_in)


def check_init(scheme: str, variance: float | None) -> None:
    """Raise ValueError unless scheme and variance belong together.

    Raises:
        ValueError: an unknown scheme; `variance` without a positive variance, or a variance that nobody reads.
    """
    if scheme not in ("upstream", "paper", "variance"):
        raise ValueError(f"init={scheme!r} is not an initialisation; expected upstream, paper or variance.")
    if scheme == "variance" and (variance is None or variance <= 0):
        raise ValueError(
            f"init=variance needs init_variance > 0, the variance that the entries of Q, K and V start with, "
            f"got {variance}; 0.333 is what nn.Linear gives MHA."
        )
    if scheme != "variance" and variance is not None:
        raise ValueError(
            f"init_variance={variance} is read by init=variance only, but init={scheme}; drop one of them."
        )

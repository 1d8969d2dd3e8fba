"""What the A factors of tensor product attention may go through.

Letters: R rank, H heads.
"""

import torch
from torch import Tensor

from lit_t6.attention.tpa_config import HeadActivation, TPAConfig


def activated(part: Tensor, name: str, activation: HeadActivation) -> Tensor:
    """An A factor (…, R, H) through its activation; other parts as they are."""
    if activation == "none" or not name.startswith("a_"):
        return part
    if activation == "sigmoid":
        return part.sigmoid()
    return part.softmax(dim=-1).to(part.dtype)  # under autocast it would leave float32


def mean_square(activation: HeadActivation, config: TPAConfig) -> float:
    """E[A²] of an activated factor whose inputs have variance 1, from many draws of a generator of its own."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.empty(4096, config.heads(), dtype=torch.float64)
    if config.static_a:  # the inputs are the weights themselves
        draws.uniform_(-(3**0.5), 3**0.5, generator=generator)
    else:  # sums of many products
        draws.normal_(generator=generator)
    return activated(draws, "a_", activation).square().mean().item()

"""How the next token is drawn from its logits. Letters: B batch, V vocabulary."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SamplingConfig:
    """How the next token is drawn from the logits.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: draw among this many likeliest tokens only; null for all.
        top_p: draw among the fewest likeliest tokens whose probabilities reach this sum; 1 for all.

    Raises:
        ValueError: a negative temperature, top_k below 1, or top_p outside (0, 1].
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 0.95

    def __post_init__(self) -> None:
        if not self.temperature >= 0:  # NaN too
            raise ValueError(f"temperature must be 0 (greedy) or above, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or null for all tokens, got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")


def sample(logits: Tensor, sampling: SamplingConfig, generator: torch.Generator | None = None) -> Tensor:
    """Draw a token for each row.

    Args:
        logits: (B, V).
        sampling: temperature and cuts; top_k comes before top_p.
        generator: of the random numbers, on the device of `logits`; the global one if not given.

    Returns:
        (B,) integer ids.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    ordered, ids = logits.float().sort(dim=-1, descending=True)
    # The likeliest stands at 0, and float64 keeps the smallest temperature apart from 0: nothing can overflow.
    ordered = ((ordered - ordered[:, :1]).double() / sampling.temperature).float()
    if sampling.top_k is not None:
        ordered[:, sampling.top_k :] = float("-inf")
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # the likeliest token has 0 before it: it always stays
    probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    drawn = torch.multinomial(probabilities, 1, generator=generator)
    return ids.gather(-1, drawn).squeeze(-1)

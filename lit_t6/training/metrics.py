"""Loss, perplexity and bits per byte, weighted by token."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class LanguageModelMetrics(Metric):
    """Sums negative log-likelihood, tokens and bytes in float64, over batches and ranks.

    The result does not depend on how the tokens are cut into batches. `compute` gives a dictionary of float64 scalars:
    `loss` (nats a token), `perplexity` (its exponential) and `bits_per_byte` (nats over ln 2 a byte of text), which
    compares models of different tokenizers.
    """

    full_state_update = False
    nats: Tensor
    tokens: Tensor
    bytes: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("nats", "tokens", "bytes"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def set_dtype(self, dst_type: str | torch.dtype) -> "LanguageModelMetrics":
        """Stay in float64."""
        return self

    def update(self, nats: Tensor, counted: Tensor, num_bytes: Tensor) -> None:
        """Add a batch.

        Args:
            nats: negative log-likelihood of each target, any shape, 0 where not counted.
            counted: true where a target counts.
            num_bytes: bytes of each target.
        """
        self.nats += nats.sum(dtype=torch.float64)
        self.tokens += counted.sum()
        self.bytes += num_bytes.sum()

    def compute(self) -> dict[str, Tensor]:
        """The three figures."""
        loss = self.nats / self.tokens
        return {
            "loss": loss,
            "perplexity": loss.exp(),
            "bits_per_byte": self.nats / (math.log(2) * self.bytes),
        }

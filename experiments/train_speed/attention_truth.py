"""What attention of some heads has to be, and how near to it products in bfloat16 come.

Letters: B sequences, T tokens of each, H heads, D = 64 their size, N heads that are compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_t6.ops.dense.hopper import SIZE
from lit_t6.testing import assert_as_exact_as

SCALE = SIZE**-0.5
DTYPE = torch.bfloat16
_LOGITS = 2**25
"""Of a chunk of queries, when the truth is computed: 256 MiB in float64, and a few such arrays at once."""


def evenly_spread(num: int, every: int, device: torch.device) -> Tensor:
    """Which of so many to look at, the first and the last among them, (up to `num`,).

    Args:
        num: how many, if there are as many.
        every: of how many.
        device: where the result lies.
    """
    return torch.linspace(0, every - 1, min(num, every), dtype=torch.float64).round().long().to(device)


class Heads(NamedTuple):
    """Queries, keys, values and the gradient of the result, (B, T, H, D) each; or of some heads, (N, T, D)."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of each, (B, T, H, D)."""
        batch, length, heads, size = self.q.shape
        return batch, length, heads, size


def by_products(given: Heads, dtype: torch.dtype) -> dict[str, Tensor]:
    """PyTorch's attention by products, as the specification: result and gradients, a chunk of queries at a time.

    Args:
        given: of some heads, (N, T, D) each.
        dtype: to compute in.
    """
    q, k, v, grad = (x.to(dtype) for x in given)
    num, length, _ = q.shape
    out, of_q = torch.empty_like(q), torch.empty_like(q)
    of_k, of_v = (torch.zeros_like(q, dtype=torch.float64) for _ in range(2))
    rows = max(1, _LOGITS // (num * length))
    for begin in range(0, length, rows):
        end = min(begin + rows, length)
        near = q[:, begin:end], k[:, :end], v[:, :end]
        queries, keys, values = (x.detach().requires_grad_() for x in near)
        seen = torch.ones(end - begin, end, dtype=torch.bool, device=q.device).tril(begin)
        with sdpa_kernel(SDPBackend.MATH):
            found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=SCALE)
            of_q[:, begin:end], to_k, to_v = torch.autograd.grad(found, (queries, keys, values), grad[:, begin:end])
        out[:, begin:end] = found.detach()
        of_k[:, :end] += to_k
        of_v[:, :end] += to_v
    return {"result": out, "queries": of_q, "keys": of_k.to(dtype), "values": of_v.to(dtype)}


@dataclass(frozen=True)
class Truth:
    """What is true of some heads, (N, T, D) each, and how near to it products in bfloat16 come.

    Args:
        sequences: of these heads, (N,).
        heads: which of a sequence's they are, (N,).
        exact: result and gradients in float64, by name.
        reference: in bfloat16.
    """

    sequences: Tensor
    heads: Tensor
    exact: Mapping[str, Tensor]
    reference: Mapping[str, Tensor]

    @classmethod
    def of(cls, drawn: Heads, num: int) -> "Truth":
        """Of some heads, evenly spread, the first and the last among them.

        Args:
            drawn: of all, (B, T, H, D) each, as they are before they are rounded.
            num: how many heads.
        """
        batch, _, heads, _ = drawn.shape
        which = evenly_spread(num, batch * heads, drawn.q.device)
        sequences, heads_of = which // heads, which % heads
        given = Heads(*(x[sequences, :, heads_of] for x in drawn))
        return cls(sequences, heads_of, by_products(given, torch.float64), by_products(given, DTYPE))

    def check(self, found: Mapping[str, Tensor]) -> None:
        """Compare what was found of all heads.

        Args:
            found: result or gradients, (B, T, H, D) each, by name.

        Raises:
            AssertionError: it is less exact than it has to be, or somewhere not finite.
        """
        for name, value in found.items():
            what = name if name == "result" else f"gradient of {name}"
            assert value.isfinite().all(), f"{what}: not finite"
            some = value[self.sequences, :, self.heads]
            assert_as_exact_as(some, self.reference[name], self.exact[name], what)

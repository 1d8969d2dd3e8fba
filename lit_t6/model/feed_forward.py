"""SwiGLU (Shazeer, arXiv 2002.05202). Letters: C model width, F hidden width."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_t6.ops.alignment import is_plain, padding
from lit_t6.ops.swiglu import swiglu_linear
from lit_t6.ops.token_linear import MAX_SIZE, takes, token_linear


def ffn_width(d_model: int, multiple_of: int) -> int:
    """⌊8·d_model/3⌋ rounded up to a multiple: three matrices of this width weigh as much as two of 4·d_model."""
    width = 8 * d_model // 3
    return -(-width // multiple_of) * multiple_of


class SwiGLU(nn.Module):
    """W3(SiLU(W1 x) ⊙ W2 x), (..., C) → (..., C), with W1 and W2 in one matrix.

    Args:
        d_model: C.
        width: F.
    """

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(d_model, 2 * width, bias=False)  # rows: W1, W2
        self.out = nn.Linear(width, d_model, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """W1 and W2 as nn.Linear draws them, W3 at zero, so that the block starts as the identity."""
        self.gate_and_value.reset_parameters()
        nn.init.zeros_(self.out.weight)

    def takes_tokens(self, x: Tensor) -> bool:
        """Whether `after_norm` is for these hidden states: few tokens, on a GPU (`lit_t6.ops.token_linear`)."""
        layers = (self.gate_and_value, self.out)
        return is_plain(*layers) and takes(x, *(layer.weight for layer in layers)) and self.out.in_features <= MAX_SIZE

    def after_norm(self, x: Tensor, eps: float) -> Tensor:
        """X + SwiGLU(RMSNorm(x)) in two kernels, of hidden states (…, C) that it takes.

        Args:
            x: before the norm.
            eps: of the norm, which has no weights.
        """
        hidden = token_linear(x, self.gate_and_value.weight, eps=eps, gated=True)
        return token_linear(hidden, self.out.weight, residual=x)

    def forward(self, x: Tensor) -> Tensor:
        width = self.out.in_features
        plain = is_plain(self.gate_and_value, self.out)
        fill = padding(width, x) if plain else 0
        if not fill and not (plain and x.is_cuda and torch.is_grad_enabled()):
            gate, value = self.gate_and_value(x).chunk(2, dim=-1)
            return self.out(F.silu(gate) * value)
        both, out = self.gate_and_value.weight, self.out.weight
        if fill:  # hidden features that are all zero: SiLU(0) ⊙ 0, times weights of zero
            both = F.pad(both.unflatten(0, (2, width)), (0, 0, 0, fill)).flatten(0, 1)
            out = F.pad(out, (0, fill))
        hidden = F.linear(x, both)
        return swiglu_linear(hidden, out.to(hidden.dtype))

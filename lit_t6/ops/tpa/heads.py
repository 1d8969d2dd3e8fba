"""Heads from factors and back by kernels: what they are started with.

Letters: B batch, T positions, R rank, H heads, D head size.
"""

import torch
import triton
from torch import Tensor
from triton import next_power_of_2

from lit_t6.ops.tpa.kernels.heads import _tpa_heads_bwd_kernel, _tpa_heads_fwd_kernel

_BLOCK_T = 1
"""Tokens of a program. Many small programs hide the way to memory best: of one warp, for a tile of 64 × 32."""

Tables = tuple[Tensor, Tensor] | None
"""Cosines and sines from `rope_angles`, (T, D / 2) or (B or 1, T, D / 2), with which b is turned; None: not at all."""


def form_heads(a: Tensor, b: Tensor, rope: Tables) -> Tensor:
    """(1/R) Σ_r a_r ⊗ b_r, (B, T, H, D), b turned.

    Args:
        a: (B, T, R, H).
        b: (B, T, R, D), of the same type.
        rope: how b is turned.
    """
    batch, length, rank, heads = a.shape
    out = torch.empty(batch, length, heads, b.shape[-1], dtype=a.dtype, device=a.device)
    a, b = _dense_rows(a), _dense_rows(b)
    cos, sin, table_stride_b, rotated = _tables(rope, b)
    total = batch * length
    _tpa_heads_fwd_kernel[(triton.cdiv(total, _BLOCK_T),)](
        *(a, b, cos, sin, out, total, length, *a.stride()[:3], *b.stride()[:3], table_stride_b),
        **_constants(rank, heads, b.shape[-1], rotated, a.dtype == torch.float32),
    )
    return out


def form_heads_backward(grad: Tensor, a: Tensor, b: Tensor, rope: Tables) -> tuple[Tensor, Tensor]:
    """Gradients of a and b, contiguous.

    Args:
        grad: of the heads, (B, T, H, D).
        a: as `form_heads` took it, and the others alike.
        b: likewise.
        rope: likewise.
    """
    batch, length, rank, heads = a.shape
    grad_a, grad_b = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (a, b))
    a, b, grad = _dense_rows(a), _dense_rows(b), _dense_rows(grad)
    cos, sin, table_stride_b, rotated = _tables(rope, b)
    total = batch * length
    _tpa_heads_bwd_kernel[(triton.cdiv(total, _BLOCK_T),)](
        *(grad, a, b, cos, sin, grad_a, grad_b, total, length),
        *(*grad.stride()[:3], *a.stride()[:3], *b.stride()[:3], table_stride_b),
        **_constants(rank, heads, b.shape[-1], rotated, a.dtype == torch.float32),
    )
    return grad_a, grad_b


def _dense_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _tables(rope: Tables, b: Tensor) -> tuple[Tensor, Tensor, int, bool]:
    if rope is None:
        return b, b, 0, False  # in the place of what is not there
    cos, sin = (table.contiguous() for table in rope)
    assert 2 * cos.shape[-1] == b.shape[-1], "the kernel turns all features or none"
    assert cos.shape[-2] == b.shape[1], f"angles of {cos.shape[-2]} positions, expected {b.shape[1]}"
    assert cos.ndim == 2 or len(cos) in (1, len(b)), f"angles of {len(cos)} rows, expected 1 or {len(b)}"
    return cos, sin, cos.stride(0) if cos.ndim == 3 and len(cos) > 1 else 0, True


def _constants(rank: int, heads: int, size: int, rotated: bool, exact: bool) -> dict[str, int | bool | str]:
    block_h, block_d = (max(16, next_power_of_2(n)) for n in (heads, size // 2 if rotated else size))
    return {
        "RANK": rank,
        "NUM_HEADS": heads,
        "SIZE": size,
        "ROTATED": rotated,
        "BLOCK_T": _BLOCK_T,
        "BLOCK_H": block_h,
        "BLOCK_D": block_d,
        "BLOCK_R": max(16, next_power_of_2(rank)),
        "PRECISION": "ieee" if exact else "tf32",
        "num_warps": min(8, max(1, block_h * block_d // 2048)),
    }

"""Rotary position embedding (Su et al., arXiv 2104.09864), half-split, as the T6 authors' code rotates.

Letters: B batch, T positions, N rows that rotate together (ranks or heads), D features of a row, P of them rotated.
"""

import torch
from torch import Tensor


def rope_angles(
    positions: Tensor, dim: int, base: float = 10000.0, decay: float | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation of every position.

    The angles are formed in float64 and rounded once, so that position 10⁶ is as exact as position 1.

    Args:
        positions: integer positions, any shape (...,).
        dim: number of features that rotate; even.
        base: the slowest pair turns by base^(-(dim-2)/dim) radians a position.
        decay: RoPE with decay, as in the authors' code: cosine and sine of an angle are multiplied by decay^angle, so
            that what is rotated shrinks with its position; not at all if not given.

    Returns:
        cos and sin, each (..., dim / 2), float32, on the device of `positions`.

    Raises:
        ValueError: `dim` is odd or not positive.
    """
    if dim <= 0 or dim % 2:
        raise ValueError(f"RoPE rotates pairs of features: dim must be even and positive, got {dim}.")
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    angles = positions.to(torch.float64)[..., None] * base**-exponents
    size = 1.0 if decay is None else decay**angles
    return (angles.cos() * size).float(), (angles.sin() * size).float()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + P/2) of the first P features of the last axis by minus the position's angle.

    P is twice the number of angles; features behind them pass through (partial RoPE).
    y1 = x1·cos + x2·sin, y2 = -x1·sin + x2·cos: the sign of the authors' code. Only differences of positions
    reach an attention score, so the sign is a convention.

    Args:
        x: (B, T, N, D), any floating type; computed in float32 at least, returned in its own type.
        cos: (T, P/2) or (B, T, P/2), from `rope_angles`.
        sin: like `cos`.

    Returns:
        The rotated tensor, shaped and typed like `x`.
    """
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # (…, T, 1, P/2): one angle for the N rows of a position
    half = cos.shape[-1]
    x1, x2, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat(((x1 * cos + x2 * sin).to(x.dtype), (x2 * cos - x1 * sin).to(x.dtype), rest), dim=-1)

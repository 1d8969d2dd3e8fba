"""Rotary position embedding (Su et al., arXiv 2104.09864), half-split, as the T6 authors' code rotates.

Letters: B batch, T positions, N rows that rotate together (ranks or heads), D features of a row.
"""

import torch
from torch import Tensor


def rope_angles(positions: Tensor, dim: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation of every position.

    The angles are formed in float64 and rounded once, so that position 10⁶ is as exact as position 1.

    Args:
        positions: integer positions, any shape (...,).
        dim: number of features that rotate; even.
        base: the slowest pair turns by base^(-(dim-2)/dim) radians a position.

    Returns:
        cos and sin, each (..., dim / 2), float32, on the device of `positions`.

    Raises:
        ValueError: `dim` is odd or not positive.
    """
    if dim <= 0 or dim % 2:
        raise ValueError(f"RoPE rotates pairs of features: dim must be even and positive, got {dim}.")
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    angles = positions.to(torch.float64)[..., None] * base**-exponents
    return angles.cos().float(), angles.sin().float()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + D/2) of the last axis by minus the position's angle.

    y1 = x1·cos + x2·sin, y2 = -x1·sin + x2·cos: the sign of the authors' code. Only differences of positions
    reach an attention score, so the sign is a convention.

    Args:
        x: (B, T, N, D), any floating type; computed in float32 at least, returned in its own type.
        cos: (T, D/2) or (B, T, D/2), from `rope_angles`.
        sin: like `cos`.

    Returns:
        The rotated tensor, shaped and typed like `x`.
    """
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # (…, T, 1, D/2): one angle for the N rows of a position
    x1, x2 = x.chunk(2, dim=-1)
    rotated = torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1)
    return rotated.to(x.dtype)

"""Where the factors of a token lie in its row of one matrix product, so that kernels read whole words of 16 bytes.

In the order of weights, rows of a have as many numbers as there are heads, 47 for one, and what follows begins
anywhere: kernels then take two bytes at a time. Here b come first, and each row of a is filled up with zeros.

Letters: B batch, T positions, C columns, R rank, H heads, D head size, A numbers of a row of a.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_t6.ops.alignment import ALIGNMENT

_STEP = ALIGNMENT // 2
"""Numbers of half precision that rows of a are multiples of."""
_COLUMNS = 64
"""What C is a multiple of: matrix products are fastest then, and compilers fill up to it by copies."""


def pack(weight: Tensor, ranks: Sequence[int], num_heads: int, head_dim: int) -> Tensor:
    """The rows of a weight in another order and filled up, so that its product with tokens is as `cut` takes it.

    Args:
        weight: (its rows, any): rows of a_q, a_k, a_v, b_q, b_k, b_v; with dense queries q, a_k, a_v, b_k, b_v. Of each
            a R · H, of each b R · D, of q H · D.
        ranks: Rq, Rk, Rv. An Rq of 0: queries are dense.
        num_heads: H.
        head_dim: D.

    Returns:
        (C, any).
    """
    dense = 0 if ranks[0] else num_heads * head_dim
    q, a, b = weight.split([dense, sum(ranks) * num_heads, sum(ranks) * head_dim])
    a = F.pad(a.unflatten(0, (-1, num_heads)), (0, 0, 0, -num_heads % _STEP)).flatten(0, 1)
    rows = torch.cat([q, b, a] if dense else [b, a])
    return F.pad(rows, (0, 0, 0, -len(rows) % _COLUMNS))


def num_columns(ranks: Sequence[int], num_heads: int, head_dim: int) -> int:
    """C.

    Args:
        ranks: as of `pack`.
        num_heads: H.
        head_dim: D.
    """
    dense = 0 if ranks[0] else num_heads * head_dim
    columns = dense + sum(ranks) * (head_dim + num_heads + -num_heads % _STEP)
    return columns + -columns % _COLUMNS


def cut(
    rows: Tensor, ranks: Sequence[int], num_heads: int, head_dim: int
) -> tuple[list[tuple[Tensor | None, Tensor]], Tensor]:
    """The factors in rows, and what lies behind them, as views.

    Args:
        rows: (B, T, C): b_q, b_k, b_v, a_q, a_k, a_v, zeros; with dense queries q, b_k, b_v, a_k, a_v, zeros.
        ranks: as of `pack`.
        num_heads: H.
        head_dim: D.

    Returns:
        a (B, T, R, A) and b (B, T, R, D) of queries, keys and values, of dense queries None and they, (B, T, H, D).
        What is behind the H heads of a row of a is 0. And (B, T, the columns left).
    """
    dense = not ranks[0]
    made = ranks[1:] if dense else ranks
    shapes = [(num_heads, head_dim)] if dense else []
    shapes += [(rank, size) for size in (head_dim, num_heads + -num_heads % _STEP) for rank in made]
    sizes = [rank * size for rank, size in shapes]
    *parts, rest = rows.split([*sizes, rows.shape[-1] - sum(sizes)], -1)
    views = [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]
    if dense:
        q, b_k, b_v, a_k, a_v = views
        return [(None, q), (a_k, b_k), (a_v, b_v)], rest
    b_q, b_k, b_v, a_q, a_k, a_v = views
    return [(a_q, b_q), (a_k, b_k), (a_v, b_v)], rest

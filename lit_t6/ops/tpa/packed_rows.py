"""Where the factors of a token lie in its row of one matrix product, so that kernels read whole words of 16 bytes.

In the order of weights, rows of a have as many numbers as there are heads, 47 for one, and what follows begins
anywhere: kernels then take two bytes at a time. Here b come first, and each row of a is filled up with zeros.

Letters: B batch, T positions, C columns, R rank, H heads, D head size, A numbers of a row of a.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_t6.ops.alignment import ALIGNMENT, COLUMNS

_STEP = ALIGNMENT // 2
"""Numbers of half precision that A is a multiple of."""


def pack(weight: Tensor, ranks: Sequence[int], num_heads: int, head_dim: int) -> Tensor:
    """The rows of a weight in another order and filled up, so that its product with tokens is as `cut` takes it.

    Args:
        weight: (out_features, in_features): rows of a_q, a_k, a_v, b_q, b_k, b_v; with dense queries q, a_k, a_v, b_k,
            b_v. Of each a R · H, of each b R · D, of q H · D.
        ranks: Rq, Rk, Rv. An Rq of 0: queries are dense.
        num_heads: H.
        head_dim: D.

    Returns:
        (C, in_features).
    """
    q, a, b = weight.split([_dense(ranks) * num_heads * head_dim, sum(ranks) * num_heads, sum(ranks) * head_dim])
    a = F.pad(a.unflatten(0, (-1, num_heads)), (0, 0, 0, _filled(num_heads) - num_heads)).flatten(0, 1)
    rows = torch.cat([q, b, a])
    return F.pad(rows, (0, 0, 0, -len(rows) % COLUMNS))


def num_packed_columns(ranks: Sequence[int], num_heads: int, head_dim: int) -> int:
    """C, a multiple of `COLUMNS`: products are fast then, and compilers add no copies that fill up to it.

    Args:
        ranks: as of `pack`.
        num_heads: H.
        head_dim: D.
    """
    columns = sum(count * size for count, size in _shapes(ranks, num_heads, head_dim))
    return columns + -columns % COLUMNS


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
    shapes = _shapes(ranks, num_heads, head_dim)
    sizes = [count * size for count, size in shapes]
    *parts, rest = rows.split([*sizes, rows.shape[-1] - sum(sizes)], -1)
    b_q, b_k, b_v, *a = (part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True))
    *of_queries, a_k, a_v = a
    return [(of_queries[0] if of_queries else None, b_q), (a_k, b_k), (a_v, b_v)], rest


def cut_factors(
    rows: Tensor, ranks: Sequence[int], num_heads: int, head_dim: int
) -> list[tuple[Tensor | None, Tensor]]:
    """The factors in rows as `cut` gives them, but of a the heads alone, (B, T, R, H).

    Args:
        rows: as of `cut`, and the others alike.
        ranks: likewise.
        num_heads: likewise.
        head_dim: likewise.
    """
    pairs, _ = cut(rows, ranks, num_heads, head_dim)
    return [(None if a is None else a[..., :num_heads], b) for a, b in pairs]


def _dense(ranks: Sequence[int]) -> bool:
    return not ranks[0]


def _filled(num_heads: int) -> int:
    """Numbers of a row of a, the zeros behind the heads included."""
    return num_heads + -num_heads % _STEP


def _shapes(ranks: Sequence[int], num_heads: int, head_dim: int) -> list[tuple[int, int]]:
    """Of what lies in a row, one after the other: how many, and of what size."""
    of_queries = num_heads if _dense(ranks) else ranks[0]
    of_b = [(count, head_dim) for count in (of_queries, *ranks[1:])]
    return of_b + [(rank, _filled(num_heads)) for rank in ranks if rank]

"""Random arguments of `tpa_decode`, the odd ones among them, and what they must give."""

import random
from dataclasses import dataclass
from typing import Any

import torch

from lit_t6.ops import rope_angles, tpa_decode
from lit_t6.testing import assert_as_exact_as

from .seeds import NAN, poison


@dataclass
class Shape:
    """What a compiled kernel is made for."""

    num_heads: int
    head_dim: int
    value_dim: int
    ranks: tuple[int, int, int]
    num_queries: int
    dtype: torch.dtype
    dense_queries: bool
    padding: float | None
    static: str
    third_order: bool
    rope: bool


def draw_shape(chance: random.Random, dtypes: list[torch.dtype], *, small: bool) -> Shape:
    """`small` is for an interpreter."""
    head_dim = chance.choice([16, 20, 32] if small else [16, 20, 32, 48, 64, 64, 96, 128])
    value_dim = chance.choice([head_dim, 16, 24] if small else [head_dim, head_dim, 16, 32, 100, 128])
    return Shape(
        num_heads=chance.choice([1, 3, 7, 16, 18] if small else [1, 7, 8, 16, 22, 32, 34, 47, 48, 61, 78, 128]),
        head_dim=head_dim,
        value_dim=value_dim,
        ranks=(
            chance.choice([1, 2, 6] if small else [1, 2, 6, 7, 16, 32]),
            chance.choice([1, 2, 3] if small else [1, 1, 2, 2, 3, 4, 6, 8]),
            chance.choice([1, 2, 3] if small else [1, 1, 2, 2, 3, 4, 6, 8]),
        ),
        num_queries=chance.choice([1, 1, 1, 2, 3, 5, 8, 16]),
        dtype=chance.choice(dtypes),
        dense_queries=chance.random() < 0.25,
        padding=chance.choice([None, None, NAN, 0.0, 0.0]),
        static=chance.choice(["", "", "", "a", "b"]),
        third_order=chance.random() < 0.2 and head_dim % 4 == 0 and value_dim % 4 == 0,
        rope=chance.random() < 0.3,
    )


def check_decoding(shape: Shape, batch: int, length: int, lengths: list[int], device: str) -> None:
    """Compare the kernel with the reference; what it must not read is poisoned."""

    def factor(positions: int, rank: int, size: int, kept: bool) -> torch.Tensor:
        width = size if shape.padding is None or not kept else -(-size // 8) * 8
        x = torch.full((batch, positions, rank, width), shape.padding or 0.0, dtype=shape.dtype, device=device)
        x[..., :size] = torch.randn(batch, positions, rank, size, device=device)
        return x[..., :size]

    new, heads, (rank_q, rank_k, rank_v) = shape.num_queries, shape.num_heads, shape.ranks
    outer_k, outer_v = (2, 4) if shape.third_order else (1, 1)
    a_q = None if shape.dense_queries else factor(new, rank_q, heads, False)
    b_q = factor(new, heads if shape.dense_queries else rank_q, shape.head_dim, False)
    kept = {
        "a_k": factor(length, rank_k, heads, True),
        "b_k": factor(length, rank_k, shape.head_dim // outer_k, True),
        "a_v": factor(length, rank_v, heads, True),
        "b_v": factor(length, rank_v, shape.value_dim // outer_v, True),
    }
    if shape.third_order:
        kept |= {"c_k": factor(length, rank_k, outer_k, True), "c_v": factor(length, rank_v, outer_v, True)}
    static = [name for name in kept if name[0] == shape.static]
    kept |= {name: kept[name][:1, :1].contiguous().expand(batch, length, -1, -1) for name in static}
    rows = torch.tensor(lengths, device=device)
    rope = None
    if shape.rope:  # of all features or some
        turned = kept["b_k"].shape[-1] // 2 * 2 if heads % 2 else max(2, kept["b_k"].shape[-1] // 4 * 2)
        rope = rope_angles(torch.arange(length, device=device), turned)

    def decode(dtype: torch.dtype, impl: str) -> torch.Tensor:
        cache: dict[str, Any] = {name: x.to(dtype) for name, x in kept.items()} if dtype != shape.dtype else kept
        queries = (None if a_q is None else a_q.to(dtype), b_q.to(dtype))
        zeros = shape.padding == 0
        return tpa_decode(*queries, **cache, lengths=rows, rope=rope, zero_padding=zeros, impl=impl)  # type: ignore[arg-type]

    exact, reference = decode(torch.float64, "reference"), decode(shape.dtype, "reference")
    for name in kept.keys() - static:
        poison(kept[name], lengths)
    assert_as_exact_as(decode(shape.dtype, "triton"), reference, exact, f"{shape}, {batch} × {length}, {lengths}")

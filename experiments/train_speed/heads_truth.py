"""Factors drawn at random, what heads and gradients of some tokens have to be, and how near to it PyTorch comes.

Letters: B sequences, T tokens of each, H heads, D = 64 their size, R rank, C numbers of a row, N tokens that are
compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from experiments.train_speed.attention_truth import evenly_spread
from lit_t6.ops.dense.hopper import KEYS, QUERIES, SIZE, QueryGradient
from lit_t6.ops.rope import apply_rope, rope_angles
from lit_t6.ops.tpa.factors import materialise
from lit_t6.ops.tpa.heads import Pair, form_heads, form_heads_backward
from lit_t6.ops.tpa.packed_rows import cut, cut_factors, num_packed_columns
from lit_t6.testing import assert_as_exact_as

WAYS = ("forward", "back, rows", "back, tiles")
NAMES = ("queries", "keys", "values")
SCALE = SIZE**-0.5
DENSE = 0
"""Rank of queries that are dense: they are turned beside the factors."""


class Shape(NamedTuple):
    """Of factors; their heads are of 64.

    Args:
        batch: B.
        length: T.
        heads: H.
        ranks: of queries, keys and values; a rank of queries of 0 says that they are dense.
    """

    batch: int
    length: int
    heads: int
    ranks: tuple[int, int, int]

    def __str__(self) -> str:
        ranks = "KV only, ranks " + ", ".join(map(str, self.ranks[1:])) if self.is_dense else f"ranks {self.ranks}"
        return f"{self.batch} × {self.length:,} tokens, {self.heads} heads of {SIZE}, {ranks}"

    @property
    def is_dense(self) -> bool:
        """Whether queries are."""
        return self.ranks[0] == DENSE

    @property
    def width(self) -> int:
        """Numbers of a token's factors and dense queries."""
        return sum(self.ranks) * (self.heads + SIZE) + self.is_dense * self.heads * SIZE

    def nbytes(self, itemsize: int) -> dict[str, int]:
        """What each way has to read and write: of the angles, those of one sequence.

        Args:
            itemsize: bytes of a number, but of gradients in tiles, which are of float32.
        """
        tokens, angles = self.batch * self.length, self.length * SIZE * 4
        heads = self.heads * SIZE  # of one token, of queries, for one
        rows = self.width * itemsize
        # The way back needs no dense queries: what it forms of them depends on their gradient alone.
        factors = rows - self.is_dense * heads * itemsize
        back = factors + rows
        forward, in_rows = (angles + tokens * (x + 3 * heads * itemsize) for x in (rows, back))
        return dict(zip(WAYS, (forward, in_rows, in_rows + tokens * heads * (4 - itemsize)), strict=True))


@dataclass(frozen=True)
class Drawn:
    """What is drawn at random of a shape.

    Args:
        rows: factors, (B, T, C), as `cut` takes them.
        grads: of queries, keys and values, (B, T, H, D) each.
        tiles: the gradient of queries, another one.
        room: for gradients of the rows, zeros.
        rope: angles of all positions.
    """

    rows: Tensor
    grads: tuple[Tensor, Tensor, Tensor]
    tiles: QueryGradient
    room: Tensor
    rope: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, shape: Shape, dtype: torch.dtype, generator: torch.Generator) -> "Drawn":
        """Draw.

        Args:
            shape: of it.
            dtype: of all but tiles and angles.
            generator: of random numbers, on the device where all is to lie.
        """
        device = generator.device
        batch, length, heads, _ = shape
        size = batch, length, heads, SIZE
        normal = partial(torch.randn, device=device, dtype=dtype, generator=generator)
        rows = normal(batch, length, num_packed_columns(shape.ranks, heads, SIZE))
        num_tiles = -(-length // KEYS) * (KEYS // QUERIES)
        of_tiles = batch, heads, num_tiles, QUERIES * SIZE
        tiles = torch.randn(of_tiles, device=device, generator=generator)
        grads = normal(size), normal(size), normal(size)
        angles = rope_angles(torch.arange(length, device=device), SIZE)
        return cls(rows, grads, QueryGradient(tiles, size, SCALE), torch.zeros_like(rows), angles)

    def pairs(self, shape: Shape) -> list[Pair]:
        """The factors."""
        return cut(self.rows, shape.ranks, shape.heads, SIZE)[0]

    def compute(self, way: str, shape: Shape) -> list[Tensor]:
        """What one of the `WAYS` gives.

        Args:
            way: which.
            shape: that was drawn.

        Returns:
            Queries, keys and values; or the gradient of the rows, of which columns behind the factors are left as they
            are.
        """
        if way == "forward":
            return form_heads(self.pairs(shape), self.rope, True, shape.heads)
        grads = (self.tiles if way == "back, tiles" else self.grads[0], *self.grads[1:])
        into, _ = cut(self.room, shape.ranks, shape.heads, SIZE)
        form_heads_backward(grads, self.pairs(shape), self.rope, into, True, shape.heads)
        return [self.room]


class Truth:
    """What is true of some tokens of what was drawn, and how near to it PyTorch comes in the same type.

    Args:
        shape: that was drawn.
        drawn: likewise.
        num_tokens: how many of all tokens, evenly spread, the first and the last among them.
    """

    def __init__(self, shape: Shape, drawn: Drawn, num_tokens: int) -> None:
        self.shape, self.drawn = shape, drawn
        self.tokens = evenly_spread(num_tokens, shape.batch * shape.length, drawn.rows.device)

    def check(self, way: str, found: Sequence[Tensor]) -> None:
        """Compare what one of the `WAYS` gave.

        Args:
            way: which.
            found: as of `Drawn.compute`; of heads, queries alone will do.

        Raises:
            AssertionError: it is less exact than it has to be, or somewhere not finite.
        """
        values = found if way == "forward" else [x for pair in self._cut(found[0]) for x in pair if x is not None]
        assert all(x.isfinite().all() for x in values), f"{way}: not finite"
        exact, reference = (self._by_pytorch(way, dtype) for dtype in (torch.float64, self.drawn.rows.dtype))
        if way == "forward":
            some = {name: self._some(x) for name, x in zip(NAMES, found, strict=False)}
        else:
            some = self._named(self._some(found[0]))
        for name, value in some.items():
            assert_as_exact_as(value, reference[name], exact[name], f"{way}: {name}")

    def _some(self, x: Tensor) -> Tensor:
        """Of (B, T, …) the tokens that are compared, (N, 1, …)."""
        return x.flatten(0, 1)[self.tokens].unsqueeze(1)

    def _cut(self, rows: Tensor) -> list[Pair]:
        return cut_factors(rows, self.shape.ranks, self.shape.heads, SIZE)

    def _named(self, rows: Tensor) -> dict[str, Tensor]:
        """The parts of rows (N, 1, C)."""
        pairs = dict(zip(NAMES, self._cut(rows), strict=True))
        of_a = {f"a of {name}": a for name, (a, _) in pairs.items() if a is not None}
        return of_a | {name if a is None else f"b of {name}": b for name, (a, b) in pairs.items()}

    def _by_pytorch(self, way: str, dtype: torch.dtype) -> dict[str, Tensor]:
        rows = self._some(self.drawn.rows).to(dtype).requires_grad_()
        positions = self.tokens % self.shape.length
        cos, sin = (x[positions].unsqueeze(1) for x in self.drawn.rope)
        if dtype == torch.float64:
            cos, sin = cos.double(), sin.double()
        heads = []
        for name, (a, b) in zip(NAMES, self._cut(rows), strict=True):
            turned = b if name == "values" else apply_rope(b, cos, sin)
            heads.append(turned if a is None else materialise(a, turned))
        if way == "forward":
            return {name: x.detach() for name, x in zip(NAMES, heads, strict=True)}
        of_queries = self.drawn.tiles.rows(torch.float32) if way == "back, tiles" else self.drawn.grads[0]
        grads = [self._some(x).to(dtype) for x in (of_queries, *self.drawn.grads[1:])]
        (found,) = torch.autograd.grad(heads, rows, grads)
        return self._named(found)

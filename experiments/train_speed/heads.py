"""How long do heads from factors take, and their gradients back to the factors, beside what memory allows?

python -m experiments.train_speed.heads --output experiments/train_speed/results_heads

Random factors lie in rows, as a projection leaves them in training. Before something is timed, and as it was timed,
some tokens of it are compared with float64; of what is wrong there is no time, and the exit status is 1.

forward      factors → queries, keys and values
back, rows   gradients of queries, keys and values → gradients of the factors
back, tiles  the same, but the gradient of queries comes in float32, as our kernel of attention sums it up

The floor is the time of reading and writing each number once, at the best rate of kernels that only read.

Letters: B sequences, T tokens of each, H heads, D = 64 their size, R rank, C numbers of a row, N tokens that are
compared.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.options import parser_for, positive
from lit_t6.bench.facts import check_device, facts, write_json
from lit_t6.bench.read_rate import measure_read_rates
from lit_t6.bench.timing import Call, num_sets, time_calls
from lit_t6.ops.alignment import ALIGNMENT
from lit_t6.ops.dense.hopper import KEYS, QUERIES, SIZE, QueryGradient
from lit_t6.ops.device import no_gpu
from lit_t6.ops.rope import apply_rope, rope_angles
from lit_t6.ops.tpa.factors import materialise
from lit_t6.ops.tpa.heads import Pair, form_heads, form_heads_backward
from lit_t6.ops.tpa.packed_attention import cut
from lit_t6.testing import assert_as_exact_as

WAYS = ("forward", "back, rows", "back, tiles")
NAMES = ("queries", "keys", "values")
SCALE = SIZE**-0.5
_DENSE = 0
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
        return self.ranks[0] == _DENSE

    @property
    def width(self) -> int:
        """Numbers of a token's factors and dense queries."""
        return sum(self.ranks) * (self.heads + SIZE) + self.is_dense * self.heads * SIZE

    def nbytes(self, itemsize: int) -> dict[str, int]:
        """What each way has to read and write.

        Args:
            itemsize: bytes of a number, but of gradients in tiles, which are of float32.
        """
        tokens = self.batch * self.length
        heads = self.heads * SIZE  # of one token, of queries, for one
        rows = self.width * itemsize
        # The way back needs no dense queries: what it forms of them depends on their gradient alone.
        factors = rows - self.is_dense * heads * itemsize
        back = factors + rows
        in_rows, of_queries = tokens * (back + 3 * heads * itemsize), tokens * heads * (4 - itemsize)
        return dict(zip(WAYS, (tokens * (rows + 3 * heads * itemsize), in_rows, in_rows + of_queries), strict=True))


SHAPES = [
    *(Shape(20, 1024, 47, (6, 2, 2)), Shape(20, 1024, 29, (_DENSE, 2, 2))),
    *(Shape(20, 1024, 34, (6, 2, 2)), Shape(1, 32768, 34, (6, 2, 2))),
]
"""The medium models of the paper (T6, KV only), and the small T6, at a usual length and at a long one."""
CPU_SHAPES = [Shape(2, 9, 5, (3, 2, 1))]


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
        step = ALIGNMENT // dtype.itemsize  # a projection's rows are filled up
        normal = partial(torch.randn, device=device, dtype=dtype, generator=generator)
        rows = normal(batch, length, -(-shape.width // step) * step)
        num_tiles = -(-length // KEYS) * (KEYS // QUERIES)
        of_tiles = batch, heads, num_tiles, QUERIES * SIZE
        tiles = torch.randn(of_tiles, device=device, generator=generator)
        grads = normal(size), normal(size), normal(size)
        angles = rope_angles(torch.arange(length, device=device), SIZE)
        return cls(rows, grads, QueryGradient(tiles, size, SCALE), torch.zeros_like(rows), angles)

    def pairs(self, shape: Shape) -> tuple[Pair, Pair, Pair]:
        """The factors."""
        return cut(self.rows, shape.ranks, shape.heads, SIZE)[0]

    def forward(self, shape: Shape) -> list[Tensor]:
        """Queries, keys and values."""
        return form_heads(self.pairs(shape), self.rope, turns_dense=True)

    def back(self, shape: Shape, in_tiles: bool) -> Tensor:
        """The gradient of the rows; of columns behind the factors zeros."""
        grads = (self.tiles if in_tiles else self.grads[0], *self.grads[1:])
        into = cut(self.room, shape.ranks, shape.heads, SIZE)[0]
        form_heads_backward(grads, self.pairs(shape), self.rope, into, turns_dense=True)
        return self.room


class Truth:
    """What is true of some tokens of what was drawn, and how near to it PyTorch comes in the same type.

    Args:
        shape: that was drawn.
        drawn: likewise.
        num_tokens: how many of all tokens, evenly spread, the first and the last among them.
    """

    def __init__(self, shape: Shape, drawn: Drawn, num_tokens: int) -> None:
        every = shape.batch * shape.length
        evenly = torch.linspace(0, every - 1, min(num_tokens, every), dtype=torch.float64)
        self.shape, self.drawn = shape, drawn
        self.tokens = evenly.round().long().to(drawn.rows.device)

    def check(self, way: str, found: Sequence[Tensor] | Tensor) -> None:
        """Compare what one of the `WAYS` gave.

        Args:
            way: which.
            found: queries, keys and values, or the gradient of the rows.

        Raises:
            AssertionError: it is less exact than it has to be, or somewhere not finite.
        """
        values = [found] if isinstance(found, Tensor) else found
        assert all(x.isfinite().all() for x in values), f"{way}: not finite"
        exact, reference = (self._by_pytorch(way, dtype) for dtype in (torch.float64, self.drawn.rows.dtype))
        if way == "forward":
            some = {name: self._some(x) for name, x in zip(NAMES, values, strict=True)}
        else:
            some = self._named(self._some(values[0]))
        for name, value in some.items():
            assert_as_exact_as(value, reference[name], exact[name], f"{way}: {name}")

    def _some(self, x: Tensor) -> Tensor:
        """Of (B, T, …) the tokens that are compared, (N, 1, …)."""
        return x.flatten(0, 1)[self.tokens].unsqueeze(1)

    def _named(self, rows: Tensor) -> dict[str, Tensor]:
        """The parts of rows (N, 1, C)."""
        parts = cut(rows, self.shape.ranks, self.shape.heads, SIZE)[0]
        pairs = dict(zip(NAMES, parts, strict=True))
        of_a = {f"a of {name}": a for name, (a, _) in pairs.items() if a is not None}
        return of_a | {name if a is None else f"b of {name}": b for name, (a, b) in pairs.items()}

    def _by_pytorch(self, way: str, dtype: torch.dtype) -> dict[str, Tensor]:
        rows = self._some(self.drawn.rows).to(dtype).requires_grad_()
        positions = self.tokens % self.shape.length
        cos, sin = (x[positions].unsqueeze(1) for x in self.drawn.rope)
        if dtype == torch.float64:
            cos, sin = cos.double(), sin.double()
        heads = []
        for name, (a, b) in zip(NAMES, cut(rows, self.shape.ranks, self.shape.heads, SIZE)[0], strict=True):
            turned = b if name == "values" else apply_rope(b, cos, sin)
            heads.append(turned if a is None else materialise(a, turned))
        if way == "forward":
            return {name: x.detach() for name, x in zip(NAMES, heads, strict=True)}
        of_queries = self.drawn.tiles.rows(torch.float32) if way == "back, tiles" else self.drawn.grads[0]
        grads = [self._some(x).to(dtype) for x in (of_queries, *self.drawn.grads[1:])]
        (found,) = torch.autograd.grad(heads, rows, grads)
        return self._named(found)


def measure(
    shape: Shape, dtype: torch.dtype, seed: int, num_checked: int, device: str, rate: float
) -> dict[str, dict[str, float | str]]:
    """How long each of the `WAYS` takes, which are checked before and as they were timed.

    Args:
        shape: to measure.
        dtype: of factors and heads.
        seed: of random numbers.
        num_checked: tokens to compare.
        device: where.
        rate: at which memory is read, GB/s.

    Returns:
        By way its milliseconds, GB/s, and share of the floor; or what was wrong.
    """
    generator = torch.Generator(device).manual_seed(seed)
    nbytes = shape.nbytes(dtype.itemsize)
    sets = [Drawn.of(shape, dtype, generator) for _ in range(num_sets(nbytes["forward"], device))]
    truth = Truth(shape, sets[0], num_checked)
    found: dict[str, dict[str, float | str]] = {}
    for way in WAYS:
        in_tiles = way == "back, tiles"
        calls: list[Call] = [partial(_first_of, each, shape) for each in sets]
        if way != "forward":
            calls = [partial(each.back, shape, in_tiles) for each in sets]
        try:
            truth.check(way, sets[0].forward(shape) if way == "forward" else sets[0].back(shape, in_tiles))
            sets[0].room.zero_()
            timing = time_calls(calls, device)
            if way != "forward":  # of what it forms, all but the first is gone
                truth.check(way, timing.output)
        except AssertionError as error:
            found[way] = {"wrong": str(error)}
            continue
        speed = nbytes[way] / timing.ms / 1e6
        times = {"ms": timing.ms, "fastest_ms": timing.fastest_ms, "slowest_ms": timing.slowest_ms}
        found[way] = {"nbytes": nbytes[way], **times, "gb_per_s": speed, "of_floor": speed / rate}
    return found


def _first_of(drawn: Drawn, shape: Shape) -> Tensor:
    return drawn.forward(shape)[0]


def table(shape: Shape, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The times of a shape in Markdown.

    Args:
        shape: that was measured.
        found: as of `measure`.
    """
    lines = [f"{shape}:", "", "| | MB | µs | GB/s | floor / time |", "|---|---:|---:|---:|---:|"]
    for way, each in found.items():
        if "wrong" not in each:
            cells = f"{each['nbytes'] / 1e6:,.1f} | {1000 * each['ms']:,.1f} | {each['gb_per_s']:,.0f}"
            lines.append(f"| {way} | {cells} | {each['of_floor']:.2f} |")
    failed = [f"* wrong: {each['wrong']}" for each in found.values() if "wrong" in each]
    return "\n".join([*lines, *([""] if failed else []), *failed]) + "\n"


def tables(results: Sequence[Mapping[str, Any]], device: str, dtype: str, rate: float) -> str:
    """All of it in Markdown.

    Args:
        results: of each shape, as written to heads.json.
        device: its name.
        dtype: of factors and heads.
        rate: at which memory is read, GB/s.
    """
    head = f"{device}: heads from factors and back in {dtype}. Floor: {rate:,.0f} GB/s, at which memory is read.\n"
    return "\n".join([head, *(table(Shape(*each["shape"]), each["ways"]) for each in results)])


def _shape(word: str) -> Shape:
    try:
        sizes, ranks = word.split(":")
        batch, length, heads = (int(part) for part in sizes.split("x"))
        of_q, of_k, of_v = (int(part) for part in ranks.split(","))
    except ValueError:
        expected = "sequences x tokens x heads : ranks, as 20x1024x47:6,2,2"
        raise argparse.ArgumentTypeError(f"{word!r}, expected {expected}") from None
    if min(batch, length, heads, of_k, of_v) < 1 or of_q < _DENSE:
        raise argparse.ArgumentTypeError(f"{word!r}, expected numbers from 1 on; 0 for the rank of dense queries")
    return Shape(batch, length, heads, (of_q, of_k, of_v))


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write heads.json and heads.md, after each shape anew.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status: 1 if something was wrong.
    """
    parser = parser_for("experiments.train_speed.heads", __doc__)
    parser.add_argument("--output", required=True, type=Path, help="folder for heads.json and heads.md")
    spelled = ", ".join("x".join(map(str, x[:3])) + ":" + ",".join(map(str, x.ranks)) for x in SHAPES)
    what = "sequences x tokens of each x heads : ranks of queries (0: dense, and turned), keys and values; may be given"
    what += f" several times (default: {spelled}; a small one on a CPU)"
    parser.add_argument("--shape", type=_shape, action="append", metavar="BxTxH:Q,K,V", help=what)
    parser.add_argument("--seed", type=int, help="of random numbers (default: by the clock; it is written down)")
    what = "tokens of all that are compared with float64, evenly spread"
    parser.add_argument("--check_tokens", type=positive, default=2048, metavar="N", help=what)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where")
    options = parser.parse_args(arguments)
    try:
        check_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    if problem := no_gpu(torch.device(options.device)):
        parser.error(problem)
    on_gpu = torch.device(options.device).type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32  # an interpreter's bfloat16 is not that of a GPU
    shapes = options.shape or (SHAPES if on_gpu else CPU_SHAPES)
    seed = time.time_ns() % 2**32 if options.seed is None else options.seed
    about = facts(options.device, program="-m experiments.train_speed.heads")
    rates = measure_read_rates(options.device)
    rate = max(rates.values())
    folder = options.output.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    settings = vars(options) | {"output": str(options.output), "shape": shapes, "seed": seed, "dtype": str(dtype)}
    results: list[dict[str, Any]] = []
    for shape in shapes:
        found = measure(shape, dtype, seed, options.check_tokens, options.device, rate)
        results.append({"shape": shape, "ways": found})
        whole = {"settings": settings, "facts": about, "read_rates_gb_per_s": rates, "results": results}
        write_json(folder / "heads.json", whole)
        told = tables(results, about["same"]["device"], str(dtype).removeprefix("torch."), rate)
        (folder / "heads.md").write_text(told)
        print(table(shape, found), file=sys.stderr, flush=True)
    print(told)
    return int(any("wrong" in each for result in results for each in result["ways"].values()))


if __name__ == "__main__":
    sys.exit(main())

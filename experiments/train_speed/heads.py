"""How long do heads from factors take, and their gradients back to the factors, beside what memory allows?

python -m experiments.train_speed.heads --output experiments/train_speed/results_heads

Random factors lie in rows, as a projection leaves them in training. Before something is timed, and as it was timed,
some tokens of it are compared with float64 (of heads as they were timed, queries); of what is wrong there is no time,
and the exit status is 1.

forward      factors → queries, keys and values
back, rows   gradients of queries, keys and values → gradients of the factors
back, tiles  the same, but the gradient of queries comes in float32, as our kernel of attention sums it up

The floor is the time of reading and writing each number once, angles included, at the best rate of kernels that only
read.

Letters: B sequences, T tokens of each, H heads, D = 64 their size, R rank, C numbers of a row, N tokens that are
compared.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.options import add_device, add_seed, make_folder, parser_for, positive
from experiments.train_speed.heads_truth import DENSE, WAYS, Drawn, Shape, Truth
from lit_t6.bench.facts import facts, write_json
from lit_t6.bench.read_rate import measure_read_rates
from lit_t6.bench.timing import Call, num_sets, time_calls
from lit_t6.ops.device import no_gpu

SHAPES = [
    *(Shape(20, 1024, 47, (6, 2, 2)), Shape(20, 1024, 29, (DENSE, 2, 2))),
    *(Shape(20, 1024, 34, (6, 2, 2)), Shape(1, 32768, 34, (6, 2, 2))),
]
"""The medium models of the paper (T6, KV only), and the small T6, at a usual length and at a long one."""
CPU_SHAPES = [Shape(2, 9, 5, (3, 2, 1))]


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
        kept: list[list[Tensor]] = [[] for _ in sets]
        calls: list[Call] = [partial(_compute, way, shape, *each) for each in zip(sets, kept, strict=True)]
        sets[0].room.fill_(float("nan"))
        try:
            truth.check(way, sets[0].compute(way, shape))
            timing = time_calls(calls, device)
            truth.check(way, [timing.output])
        except AssertionError as error:
            found[way] = {"wrong": str(error)}
            continue
        speed = nbytes[way] / timing.ms / 1e6
        times = {"ms": timing.ms, "fastest_ms": timing.fastest_ms, "slowest_ms": timing.slowest_ms}
        found[way] = {"nbytes": nbytes[way], **times, "gb_per_s": speed, "of_floor": speed / rate}
    return found


def _compute(way: str, shape: Shape, drawn: Drawn, kept: list[Tensor]) -> Tensor:
    """The first of what a way gives; all of it is kept, so that the next call writes into other memory."""
    kept[:] = drawn.compute(way, shape)
    return kept[0]


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


def brief(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The times of a shape in a few words.

    Args:
        found: as of `measure`.
    """
    said = (f"wrong: {each['wrong']}" if "wrong" in each else f"{1000 * each['ms']:.1f} µs" for each in found.values())
    return " | ".join(said)


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
    if min(batch, length, heads, of_k, of_v) < 1 or of_q < DENSE:
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
    add_seed(parser)
    what = "tokens of all that are compared with float64, evenly spread"
    parser.add_argument("--check_tokens", type=positive, default=2048, metavar="N", help=what)
    add_device(parser, "where; a CPU needs TRITON_INTERPRET=1 in the environment, and tells no speed of use")
    options = parser.parse_args(arguments)
    if problem := no_gpu(torch.device(options.device)):
        parser.error(problem)
    on_gpu = torch.device(options.device).type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32  # an interpreter's bfloat16 is not that of a GPU
    shapes = options.shape or (SHAPES if on_gpu else CPU_SHAPES)
    about = facts(options.device, program="-m experiments.train_speed.heads")
    folder = make_folder(parser, options.output)
    rates = measure_read_rates(options.device)
    rate = max(rates.values())
    settings = vars(options) | {"output": str(options.output), "shape": shapes, "dtype": str(dtype)}
    results: list[dict[str, Any]] = []
    for shape in shapes:
        found = measure(shape, dtype, options.seed, options.check_tokens, options.device, rate)
        results.append({"shape": shape, "ways": found})
        whole = {"settings": settings, "facts": about, "read_rates_gb_per_s": rates, "results": results}
        write_json(folder / "heads.json", whole)
        told = tables(results, about["same"]["device"], str(dtype).removeprefix("torch."), rate)
        (folder / "heads.md").write_text(told)
        print(f"{shape}: {brief(found)}", file=sys.stderr, flush=True)
    print(told)
    return int(any("wrong" in each for result in results for each in result["ways"].values()))


if __name__ == "__main__":
    sys.exit(main())

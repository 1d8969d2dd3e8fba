"""How long does causal attention take forward and back by each backend, and how near is that to the GPU's matrix rate?

python -m experiments.train_speed.attention --output experiments/train_speed/results_attention

Of each shape random heads of 64 in bfloat16 are drawn. A backend's result and gradients are first compared with
attention in float64, those of some heads; of a backend that is wrong there is no time. What is timed is compared too.

forward      queries, keys and values → result
back, rows   gradient of the result → those of queries, keys and values
back, tiles  the same, but the gradient of queries as our kernel sums it up, which TPA and MHA train with; other
             backends have no tiles, and their rows count

Letters: B sequences, T tokens of each, H heads, D = 64 their size.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from experiments.options import add_device, add_seed, make_folder, parser_for, positive
from experiments.train_speed.attention_truth import DTYPE, SCALE, Heads, Truth
from lit_t6.bench.facts import facts, write_json
from lit_t6.bench.timing import Timing, num_sets, time_calls
from lit_t6.ops import fused
from lit_t6.ops.dense.hopper import SIZE, QueryGradient
from lit_t6.training.callbacks.throughput import peak_flops

WAYS = ("forward", "back, rows", "back, tiles")
TRAINED = "forward and back, tiles"
NAMES = {"cudnn": "cuDNN", "hopper": "ours", "flash": "FlashAttention 2", "efficient": "memory-efficient", "cpu": "CPU"}


class Shape(NamedTuple):
    """Of queries, keys and values; their heads are of 64.

    Args:
        batch: B.
        length: T.
        heads: H.
    """

    batch: int
    length: int
    heads: int

    def __str__(self) -> str:
        return f"{self.batch} × {self.length:,} tokens, {self.heads} heads of {SIZE}"

    @property
    def flops(self) -> dict[str, float]:
        """Of each way; a multiply-add is two. What is hidden is not counted, nor that logits are formed twice."""
        forward = 2 * 2 * self.batch * self.heads * self.length**2 / 2 * SIZE
        back = 2.5 * forward
        return dict(zip((*WAYS, TRAINED), (forward, back, back, forward + back), strict=True))


SHAPES = [
    *(Shape(20, 1024, 47), Shape(20, 1024, 29), Shape(20, 1024, 16)),
    *(Shape(4, 4096, 34), Shape(1, 8192, 34), Shape(1, 32768, 12)),
]
"""The medium models of the paper (T6, KV only, MHA), and long sequences of the small ones."""
CPU_SHAPES = [Shape(2, 100, 3)]


def draw(shape: Shape, seed: int, num_checked: int, device: str) -> tuple[list[Heads], Truth]:
    """Random sets of heads in bfloat16, as many as leave no cache of use, and the truth about the first.

    Args:
        shape: of theirs.
        seed: of the drawing.
        num_checked: heads to compare.
        device: where.
    """
    generator = torch.Generator(device).manual_seed(seed)
    size = (4, shape.batch, shape.length, shape.heads, SIZE)
    drawn = Heads(*torch.randn(size, device=device, generator=generator))
    sets = [Heads(*(x.to(DTYPE) for x in drawn))]
    nbytes = sum(x.nbytes for x in sets[0][:3])
    for _ in range(num_sets(nbytes, device) - 1):
        sets.append(Heads(*torch.randn(size, device=device, generator=generator, dtype=DTYPE)))
    return sets, Truth.of(drawn, num_checked)


def measure(sets: Sequence[Heads], truth: Truth, backend: fused.Backend, device: str) -> dict[str, Timing]:
    """How long each of the `WAYS` takes, which are checked before and as they were timed.

    Args:
        sets: of heads.
        truth: about the first.
        backend: to measure.
        device: where.

    Raises:
        AssertionError: the backend is wrong.
        RuntimeError: it does not take such tensors.
    """
    kept = [fused.attend(q, k, v, SCALE, backend) for q, k, v, _ in sets]
    truth.check({"result": kept[0][0]})
    given = [(x.grad, x.q, x.k, x.v, out, lse, SCALE, backend) for x, (out, lse) in zip(sets, kept, strict=True)]
    backs: list[Callable[..., Any]] = [fused.attend_backward]
    if backend == "hopper":
        backs.append(fused.attend_backward_in_tiles)
    for back in backs:
        of_q, of_k, of_v = back(*given[0])
        of_q = of_q.rows(DTYPE) if isinstance(of_q, QueryGradient) else of_q
        truth.check({"queries": of_q, "keys": of_k, "values": of_v})
    found = {"forward": time_calls([partial(_result, x, backend) for x in sets], device)}
    truth.check({"result": found["forward"].output})
    for way, back in zip(WAYS[1:], backs, strict=False):
        timing = found[way] = time_calls([partial(_gradient, back, each) for each in given], device)
        in_tiles = QueryGradient(timing.output, sets[0].shape, SCALE)
        truth.check({"queries": timing.output if way == "back, rows" else in_tiles.rows(DTYPE)})
    found.setdefault("back, tiles", found["back, rows"])
    return found


def _result(given: Heads, backend: fused.Backend) -> Tensor:
    return fused.attend(given.q, given.k, given.v, SCALE, backend)[0]


def _gradient(back: Callable[..., Any], given: Sequence[Any]) -> Tensor:
    """Of queries, in rows or tiles; the others are formed as well."""
    of_q: Tensor | QueryGradient = back(*given)[0]
    return of_q.tiles if isinstance(of_q, QueryGradient) else of_q


def measure_all(
    shape: Shape, backends: Sequence[fused.Backend], seed: int, num_checked: int, device: str
) -> dict[str, dict[str, Any]]:
    """Of each backend the milliseconds of each way, or why there are none.

    Args:
        shape: to measure.
        backends: whose.
        seed: of random heads.
        num_checked: heads to compare.
        device: where.

    Returns:
        By backend either {"ms": {way: …}, "fastest_ms": …, "slowest_ms": …} or {"wrong": …} or {"refused": …}.
    """
    sets, truth = draw(shape, seed, num_checked, device)
    found: dict[str, dict[str, Any]] = {}
    for backend in backends:
        try:
            timings = measure(sets, truth, backend, device)
        except AssertionError as error:
            found[backend] = {"wrong": str(error)}
        except RuntimeError as error:  # by its words only can one tell, and another may take them
            found[backend] = {"refused": str(error).splitlines()[0]}
        else:
            found[backend] = {
                name: {way: getattr(timing, name) for way, timing in timings.items()}
                for name in ("ms", "fastest_ms", "slowest_ms")
            }
            ms = found[backend]["ms"]
            ms[TRAINED] = ms["forward"] + ms["back, tiles"]
    return found


def told(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A line about a shape.

    Args:
        found: as of `measure_all`.
    """
    parts = []
    for backend, each in found.items():
        if "ms" in each:
            said = " | ".join(f"{1000 * each['ms'][way]:.1f}" for way in WAYS) + " µs"
        else:
            said = "; ".join(f"{how}: {why}" for how, why in each.items())
        parts.append(f"{NAMES[backend]} {said}")
    return ", ".join(parts)


def table(shape: Shape, found: Mapping[str, Mapping[str, Any]], peak: float | None) -> str:
    """The times of a shape in Markdown.

    Args:
        shape: that was measured.
        found: as of `measure_all`.
        peak: of the GPU's matrix units, FLOP/s, if that is known.
    """
    measured = {backend: each["ms"] for backend, each in found.items() if "ms" in each}
    compared = {"hopper", "cudnn"} <= measured.keys()
    titles = [title for backend in measured for title in (f"{NAMES[backend]}, µs", "TFLOP/s")]
    titles += ["ours over cuDNN's"] if compared else []
    lines = [f"{shape}:", ""]
    if measured:
        lines += [f"| | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
        for way, flops in shape.flops.items():
            cells = [way]
            for ms in measured.values():
                rate = 1000 * flops / ms[way]
                share = f" ({rate / peak:.0%})" if peak else ""
                cells += [f"{1000 * ms[way]:,.1f}", f"{rate / 1e12:,.3g}{share}"]
            cells += [f"{measured['cudnn'][way] / measured['hopper'][way]:.2f}"] if compared else []
            lines.append(f"| {' | '.join(cells)} |")
    failed = [f"* {told({backend: each})}" for backend, each in found.items() if backend not in measured]
    return "\n".join([*lines, *([""] if measured and failed else []), *failed]) + "\n"


def tables(results: Sequence[Mapping[str, Any]], device: str, peak: float | None) -> str:
    """All of it in Markdown.

    Args:
        results: of each shape, as written to attention.json.
        device: its name.
        peak: as of `table`.
    """
    head = f"{device}: causal attention in bfloat16. "
    head += f"In brackets the share of {peak / 1e12:,.0f} TFLOP/s, its matrix rate. " if peak else ""
    head += "Ours over cuDNN's: of speeds.\n"
    return "\n".join([head, *(table(Shape(*each["shape"]), each["backends"], peak) for each in results)])


def _shape(word: str) -> Shape:
    try:
        batch, length, heads = (int(part) for part in word.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r}, expected sequences x tokens x heads, as 20x1024x47") from None
    if min(batch, length, heads) < 1:
        raise argparse.ArgumentTypeError(f"{word!r}, expected numbers from 1 on")
    return Shape(batch, length, heads)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write attention.json and attention.md, after each shape anew.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status: 1 if a backend was wrong.
    """
    parser = parser_for("experiments.train_speed.attention", __doc__)
    parser.add_argument("--output", required=True, type=Path, help="folder for attention.json and attention.md")
    spelled = ", ".join("x".join(map(str, shape)) for shape in SHAPES)
    what = f"sequences x tokens of each x heads; may be given several times (default: {spelled}; a small one on a CPU)"
    parser.add_argument("--shape", type=_shape, action="append", metavar="BxTxH", help=what)
    what = "whose kernels, hopper being ours; may be given several times (default: all that take bfloat16 there)"
    parser.add_argument("--backend", choices=get_args(fused.Backend), action="append", help=what)
    add_seed(parser)
    what = "heads of all sequences that are compared with float64, evenly spread"
    parser.add_argument("--check_heads", type=positive, default=16, metavar="N", help=what)
    add_device(parser)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    usable = fused.usable(DTYPE, device)
    backends = options.backend or usable
    if strange := [backend for backend in backends if backend not in usable]:
        parser.error(f"backend {strange[0]} does not run on {device}; those that do: {', '.join(usable) or 'none'}")
    shapes = options.shape or (CPU_SHAPES if device.type == "cpu" else SHAPES)
    settings = vars(options) | {"output": str(options.output), "shape": shapes, "backend": backends}
    about = facts(options.device, program="-m experiments.train_speed.attention")
    peak = peak_flops(device)
    folder = make_folder(parser, options.output)
    results: list[dict[str, Any]] = []
    for shape in shapes:
        found = measure_all(shape, backends, options.seed, options.check_heads, options.device)
        results.append({"shape": shape, "flops": shape.flops, "backends": found})
        whole = {"settings": settings, "facts": about, "peak_flops": peak, "results": results}
        write_json(folder / "attention.json", whole)
        (folder / "attention.md").write_text(tables(results, about["same"]["device"], peak))
        print(f"{shape}, {' | '.join(WAYS)}: {told(found)}", file=sys.stderr, flush=True)
    print(tables(results, about["same"]["device"], peak))
    return int(any("wrong" in each for result in results for each in result["backends"].values()))


if __name__ == "__main__":
    sys.exit(main())

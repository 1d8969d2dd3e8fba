"""Loss curves of the fast and the reference path, from the same weights and data.

python -m experiments.train_speed.curves --config configs/paper/small-tpa.yaml --output curves
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from experiments.options import add_device, make_folder, parser_for, positive, warn_of_cpu
from lit_t6.bench.facts import facts, write_json
from lit_t6.bench.training.checks import reference_of
from lit_t6.model import T6Config
from lit_t6.model_reader import ModelReader
from lit_t6.training import LitT6, OptimizerConfig

BACK = 8
"""Every second token repeats the one so many places before: attention has something to learn, at once."""


def batches(vocab_size: int, batch: int, seq_len: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens and targets, (B, T) each: numbers of which few are frequent, as words are, half of them repeated.

    Args:
        vocab_size: V.
        batch: B.
        seq_len: T.
        steps: how many.
        seed: of the drawing, which happens on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    frequencies = 1 / torch.arange(1, vocab_size + 1, dtype=torch.float64)
    for _ in range(steps):
        drawn = torch.multinomial(frequencies, batch * (seq_len + 1), replacement=True, generator=generator)
        tokens = drawn.view(batch, seq_len + 1)
        repeats = torch.rand(tokens.shape, generator=generator) < 0.5
        for place in range(BACK, seq_len + 1):
            tokens[:, place] = torch.where(repeats[:, place], tokens[:, place - BACK], tokens[:, place])
        yield tokens[:, :-1], tokens[:, 1:]


def train(config: T6Config, compile: bool, mixed: bool, args: argparse.Namespace) -> list[float]:
    """The loss of every step of a training; weights, data and schedule follow from the arguments alone."""
    torch.manual_seed(args.seed)
    optimizer_config = OptimizerConfig(lr=args.lr, min_lr=args.lr / 10, warmup_steps=args.steps // 10)
    module = LitT6(config, optimizer_config, compile=compile).to(args.device)
    weights = list(module.parameters())
    optimizer = optimizer_config.build(weights)
    schedule = optimizer_config.schedule(optimizer, args.steps)
    kind = torch.device(args.device).type
    losses = []
    for tokens, targets in batches(config.vocab_size, args.batch, args.seq_len, args.steps, args.seed):
        batch = {"tokens": tokens.to(args.device), "targets": targets.to(args.device)}
        with torch.autocast(kind, torch.bfloat16, enabled=mixed, cache_enabled=False):
            loss = module.training_step(batch, 0)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def differences(curve: list[float], other: list[float]) -> dict[str, float]:
    """Largest and mean distance of two curves, in nats, and how far apart they end."""
    apart = [abs(x - y) for x, y in zip(curve, other, strict=True)]
    return {"largest": max(apart), "mean": sum(apart) / len(apart), "last": apart[-1]}


def draw(curves: dict[str, list[float]], title: str, path: Path) -> None:
    """The curves above, and below how far they are from the reference."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    colours = {"fast": "#d55e00", "reference": "black", "reference in float32": "#0072b2"}
    for name, curve in curves.items():
        above.plot(curve, label=name, color=colours[name], linewidth=2.5 if name == "fast" else 1.2, alpha=0.8)
        if name != "reference":
            apart = [x - y for x, y in zip(curve, curves["reference"], strict=True)]
            below.plot(apart, color=colours[name], linewidth=1)
    above.set_ylabel("loss (nats)")
    above.legend()
    below.set_ylabel("minus the reference")
    below.set_xlabel("step")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Train three times, compare, and write curves.json and curves.png.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        What is written to curves.json.
    """
    parser = parser_for("experiments.train_speed.curves", __doc__)
    parser.add_argument("--config", default="configs/paper/small-tpa.yaml", help="file of a model")
    parser.add_argument("--steps", type=positive, default=200, help="of training")
    parser.add_argument(
        "--batch", type=positive, default=4, help="sequences; the reference keeps the square of their length"
    )
    parser.add_argument("--seq_len", type=positive, default=256, help="tokens of each sequence")
    parser.add_argument("--lr", type=float, default=6e-4, help="learning rate at its highest")
    parser.add_argument("--seed", type=int, default=0, help="of weights and tokens")
    parser.add_argument("--no_compile", action="store_true", help="do not compile the fast path")
    add_device(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder for curves.json and curves.png")
    args = parser.parse_args(arguments)
    folder = make_folder(parser, args.output)
    small = "--config configs/quickstart.yaml --steps 5 --batch 1 --seq_len 64"
    warn_of_cpu(args.device, args.batch * args.seq_len, small)
    config = replace(ModelReader().read(["--config", args.config]).resolved(), max_seq_len=args.seq_len)
    runs = {
        "fast": (config, not args.no_compile, True),
        "reference": (reference_of(config), False, True),
        "reference in float32": (reference_of(config), False, False),
    }
    curves: dict[str, list[float]] = {}
    for name, (settings, compiled, mixed) in runs.items():
        began = time.monotonic()
        torch.set_float32_matmul_precision("high" if mixed else "highest")  # "high" as `fit` does
        curves[name] = train(settings, compiled, mixed, args)
        print(f"{name}: {curves[name][0]:.4f} → {curves[name][-1]:.4f} ({time.monotonic() - began:.0f} s)", flush=True)
    found = {
        "settings": vars(args) | {"output": str(args.output), "attention": config.attention.label},
        "facts": facts(args.device, program="-m experiments.train_speed.curves"),
        "fast_and_reference": differences(curves["fast"], curves["reference"]),
        "float32_and_reference": differences(curves["reference in float32"], curves["reference"]),
        "fast_and_float32": differences(curves["fast"], curves["reference in float32"]),
        "curves": curves,
    }
    for what in ("fast_and_reference", "float32_and_reference", "fast_and_float32"):
        apart = {key: f"{value:.2e}" for key, value in found[what].items()}
        print(f"{what.replace('_', ' ')}: at most {apart['largest']} nats apart, on average {apart['mean']}")
    write_json(folder / "curves.json", found)
    draw(curves, f"{Path(args.config).stem}, {found['facts']['same']['device']}", folder / "curves.png")
    print(f"written: {folder / 'curves.json'}, curves.png")
    return found


if __name__ == "__main__":
    main()

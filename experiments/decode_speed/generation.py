"""Tokens a second of whole models, beside the time that reading their weights takes.

python -m experiments.decode_speed.generation --output results.json
"""

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from experiments.options import make_folder, parser_for, positive
from lit_t6.bench.read_rate import measure_read_rates
from lit_t6.model import DecodeStep, SamplingConfig, T6Model
from lit_t6.model_reader import ModelReader
from lit_t6.testing import assert_as_exact_as

GREEDY = SamplingConfig(temperature=0)
SETTLING = 10  # tokens that are not timed: kernels are compiled, a graph is recorded


def random_model(config: str, device: str, dtype: torch.dtype) -> T6Model:
    """Weights are random: how fast a model is does not depend on them. Zeros would be faster than real ones."""
    settings = ModelReader().read(["--config", config])
    torch.manual_seed(0)
    with torch.device(device):
        model = T6Model(settings).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model.eval()


@torch.no_grad()
def check(model: T6Model, prompts: torch.Tensor, step: Any, capacity: int, steps: int = 6) -> None:
    """Logits of the steps are as exact as those of the full forward pass in the same type."""
    cache = model.new_cache(len(prompts), capacity)
    decode = DecodeStep(model, cache, step)
    first = prompts.shape[1] - steps
    model.hidden_states(prompts[:, :first], cache=cache)
    logits = torch.stack([decode(prompts[:, first + n]).clone() for n in range(steps)], dim=1)
    full = model.head(model.hidden_states(prompts)[:, first:])
    model.float()
    exact = model.head(model.hidden_states(prompts)[:, first:]).double()
    model.to(full.dtype)
    assert_as_exact_as(logits, full, exact, f"logits of step={step}")


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(tokens: Iterator[torch.Tensor], device: str) -> tuple[float, float]:
    """Milliseconds to the first token, and of one of those after the first few."""
    began = clock(device)
    next(tokens)
    first = clock(device)
    for _ in range(SETTLING - 1):
        next(tokens)
    settled = clock(device)
    count = sum(1 for _ in tokens)
    return 1000 * (first - began), 1000 * (clock(device) - settled) / count


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a line of each, and write the JSON file, after each anew.

    Args:
        arguments: of the command line; those of the process if not given.
    """
    parser = parser_for("experiments.decode_speed.generation", __doc__)
    configs = [f"configs/paper/medium-{name}.yaml" for name in ("tpa", "mha")]
    parser.add_argument("--config", nargs="+", default=configs, help="files of models")
    parser.add_argument("--batch", nargs="+", type=positive, default=[1, 32], help="prompts at a time")
    parser.add_argument("--prompt", type=positive, default=1024, help="tokens of each prompt")
    parser.add_argument("--new", type=positive, default=512, help="tokens to generate")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = ["eager", "graph", "compile"] if device == "cuda" else ["eager", "compile"]
    parser.add_argument(
        "--step", nargs="+", choices=steps, default=steps, help="how a token is computed (graph: on a GPU)"
    )
    parser.add_argument("--turns", type=positive, default=3, help="how often; the median counts")
    parser.add_argument("--output", type=Path, help="a JSON file; printed only if not given")
    args = parser.parse_args(arguments)
    if args.output:
        make_folder(parser, args.output.parent)
    for config in args.config:
        if not Path(config).is_file():
            parser.error(f"--config: there is no file {config}")
    if device == "cpu":
        print("No GPU: medium models take minutes on a CPU; smaller --config, --prompt, --new and --turns do not.")
    dtype = torch.bfloat16
    rate = max(measure_read_rates(device).values())
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}: {rate:,.0f} GB/s read", flush=True)
    rows: list[dict[str, Any]] = []
    for batch in args.batch:
        for step in args.step:
            for config in args.config:
                model = random_model(config, device, dtype)
                model.config.max_seq_len = args.prompt + args.new
                prompts = torch.randint(model.config.vocab_size, (batch, args.prompt), device=device)
                check(model, prompts, step, args.prompt + args.new - 1)
                turns = [timed(model.generate(prompts, args.new, GREEDY, step=step), device) for _ in range(args.turns)]
                first, each = (statistics.median(column) for column in zip(*turns, strict=True))
                weights = sum(p.numel() * p.element_size() for p in model.parameters())
                cache = model.new_cache(1, 1).bytes_per_token * (args.prompt + args.new / 2) * batch
                row = {
                    "config": config,
                    "attention": model.config.attention.label,
                    "batch": batch,
                    "step": step,
                    "first_token_ms": first,
                    "token_ms": each,
                    "tokens_per_sec": 1000 * batch / each,
                    "of_floor": (weights + cache) / rate / 1e6 / each,
                    "of_weights_floor": weights / rate / 1e6 / each,
                }
                rows.append(row)
                print(
                    f"batch {batch:3}  {step:8} {row['attention']:24} first token {first:8.1f} ms, then {each:7.3f} ms "
                    f"a step, {row['tokens_per_sec']:10,.0f} tokens/s; reading the weights would take "
                    f"{row['of_weights_floor']:.2f} of it, with the cache {row['of_floor']:.2f}",
                    flush=True,
                )
                if args.output:
                    found = {"device": name, "torch": str(torch.__version__), "read_gb_per_sec": rate, "rows": rows}
                    args.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

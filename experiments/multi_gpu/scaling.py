"""Tokens a second on 1, 2, 4 and 8 devices, with DDP and FSDP, and whether their losses are those of one.

python -m experiments.multi_gpu.scaling --output experiments/multi_gpu/results
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from experiments.multi_gpu.agreement import Found, check, of_one_device
from experiments.multi_gpu.cases import Case, plan, run_case, run_on_each
from experiments.options import parser_for, positive, seconds
from experiments.trained import CHECKOUT, synthetic_data
from lit_t6.bench.facts import facts, write_json
from lit_t6.sweeps.devices import visible_gpus

WHAT = {"losses": "losses", "grad_norms": "norms of the gradient"}


def table(result: dict[str, Any]) -> str:
    """The results in Markdown.

    Args:
        result: what is written to scaling.json.
    """
    settings, device = result["settings"], result["facts"]["same"]["device"]
    first = result["cases"][0]
    lines = [
        f"{Path(settings['config']).stem}, {settings['batch']} sequences a device and step; {device}, torch "
        f"{result['facts']['same']['torch']}",
        "",
        "| devices | strategy | sequences a step | tokens/s | of linear | of each alone | ms a step | peak GiB "
        "| compared at step | loss | one device's | apart at most |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    alone = of_one_device(result["cases"], micro_batches=1)
    each = first.get("each", [])
    for case in result["cases"]:
        if case["strategy"] == "one" and case is not first:
            continue
        share = case["tokens_per_sec"] / first["tokens_per_sec"] / case["devices"]
        steps = [int(step) for step in case.get("apart", {}) if step not in case["noisy"].get("losses", {})]
        compared = [""] * 4
        if steps:
            last, one = max(steps), alone[case["global_batch"]]["losses"]
            compared = [", ".join(map(str, steps)), f"{case['losses'][last]:.5f}", f"{one[last]:.5f}"]
            compared += [f"{max(case['apart'][str(step)] for step in steps):.1e}"]
        cells = [
            str(case["devices"]),
            "" if case is first else case["strategy"].upper(),
            str(case["global_batch"]),
            f"{case['tokens_per_sec']:,.0f}",
            f"{share:.3f}",
            f"{case['tokens_per_sec'] / sum(each[: case['devices']]):.3f}" if len(each) >= case["devices"] else "",
            f"{case['step_ms']:.1f}",
            f"{case['peak_gib']:.1f}",
            *compared,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for case in result["cases"]:
        for what, noisy in case.get("noisy", {}).items():
            away = case["apart" if what == "losses" else "norms_apart"]
            told = ", ".join(f"{away[step]:.1e} at {step} (one device {noisy[step]:.1e})" for step in noisy)
            lines += [
                "",
                f"{case['devices']} × {case['strategy'].upper()}, {WHAT[what]} where one device is far from "
                f"itself when it takes the same sequences in halves: apart by {told}.",
            ]
    if each:
        rates = ", ".join(f"{rate:,.0f}" for rate in each)
        lines += ["", f"Each alone: one device's training on all of them at the same time; {rates} tokens/s."]
    lines += ["", *(f"Not measured: {missing}." for missing in result["missing"])]
    return "\n".join(lines).rstrip() + "\n"


def draw(result: dict[str, Any], path: Path) -> Figure:
    """Speed-up over the number of devices, beside the line that would be ideal.

    Args:
        result: as of `table`.
        path: of the PNG.
    """
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    first = result["cases"][0]
    most = max(case["devices"] for case in result["cases"])
    axes.plot([1, most], [1, most], color="black", linestyle="--", linewidth=1, label="ideal")
    for strategy, colour in (("ddp", "#d55e00"), ("fsdp", "#0072b2")):
        points = [(case["devices"], case["tokens_per_sec"]) for case in result["cases"] if case["strategy"] == strategy]
        if points:
            x, y = zip((1, first["tokens_per_sec"]), *points, strict=True)
            axes.plot(
                x, [rate / first["tokens_per_sec"] for rate in y], color=colour, marker="o", label=strategy.upper()
            )
    numbers = sorted({case["devices"] for case in result["cases"]})
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set(xlabel="devices", ylabel="tokens a second, times one device's")
    axes.set_title(f"{Path(result['settings']['config']).stem}, {result['facts']['same']['device']}", fontsize=10)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()
    figure.savefig(path, dpi=110)
    return figure


def measure(cases: list[Case], settings: dict[str, Any], data: str | None) -> tuple[Found, list[str]]:
    """Run the cases one after another while there is time.

    Args:
        cases: in order.
        settings: of the run.
        data: prepared; None makes some.

    Returns:
        What was measured, and what was not, with the reason.
    """
    found: Found = []
    missing: list[str] = []
    gpus = visible_gpus()[: max(settings["devices"])] if settings["accelerator"] == "gpu" else []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lit_t6_scaling_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        path = Path(data).expanduser().resolve() if data else synthetic_data(folder)
        for case in cases:
            left = settings["seconds"] - (time.monotonic() - began)
            if left <= 0:
                missing.append(f"{case.name}: --seconds {settings['seconds']:g} were over")
                continue
            started = time.monotonic()
            limit = min(left, settings["case_seconds"])
            arguments = case, settings, path, folder / "cache", limit
            case_found = run_on_each(*arguments, gpus) if case is cases[0] and gpus else run_case(*arguments)
            took = f"({time.monotonic() - started:.0f} s)"
            if case_found["status"] == "measured":
                found.append(case_found)
                rate = case_found["tokens_per_sec"]
                tell(f"{case.name}: {'losses alone' if rate is None else f'{rate:,.0f} tokens/s'} {took}")
            else:
                missing.append(f"{case.name}: {case_found['why']}")
                tell(f"{case.name}: failed, {case_found['why']} {took}\n{case_found['log']}")
    return found, missing


def tell(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The options, checked.

    Args:
        arguments: of the command line; those of the process if not given.
    """
    parser = parser_for("experiments.multi_gpu.scaling", __doc__)
    parser.add_argument("--output", required=True, type=Path, help="folder for scaling.json, .md and .png")
    parser.add_argument("--config", default="configs/paper/medium-tpa.yaml", help="file of a model and its recipe")
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu", help="kind of devices")
    what = "numbers of devices, 1 first (default: 1, 2, 4 and 8, as many as are there)"
    parser.add_argument("--devices", type=int, nargs="+", help=what)
    parser.add_argument("--batch", type=positive, default=20, help="sequences a device and step")
    parser.add_argument("--steps", type=positive, default=50, help="of each case")
    parser.add_argument("--warmup", type=int, default=15, help="steps whose speed does not count")
    parser.add_argument(
        "--loss_steps", type=positive, default=15, help="steps whose losses are compared with one device's"
    )
    parser.add_argument("--log_every", type=positive, default=5, help="steps that one record of the speed is a mean of")
    parser.add_argument("--compile", choices=("true", "false"), help="in place of what the file says")
    parser.add_argument("--data", help="a prepared folder; drawn words if not given")
    parser.add_argument("--seconds", type=seconds, default=1800, help="after which no case begins or goes on")
    parser.add_argument("--case_seconds", type=seconds, default=240, help="that one case may take")
    options = parser.parse_args(arguments)
    if options.devices is None:
        there = torch.cuda.device_count() if options.accelerator == "gpu" else 2
        options.devices = [number for number in (1, 2, 4, 8) if number <= there]
    if len(options.devices) < 2 or options.devices != sorted(set(options.devices)) or options.devices[0] != 1:
        parser.error(
            f"--devices {options.devices or '(none are there)'}: expected 1 and larger numbers, as 1 2 4. With less "
            "than two GPUs, --accelerator cpu shows how it goes; see experiments/multi_gpu/README.md."
        )
    if options.warmup < 0:
        parser.error(f"--warmup {options.warmup}: expected a number from 0 on.")
    if not options.warmup + options.log_every <= options.steps:
        parser.error(f"--steps {options.steps}: leaves nothing to time after --warmup {options.warmup}.")
    if not options.log_every <= options.loss_steps <= options.steps:
        parser.error(f"--loss_steps {options.loss_steps}: expected --log_every to --steps.")
    options.config = str(Path(options.config).resolve())
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, compare, and write scaling.json, scaling.md and scaling.png.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status: 1 if losses are not those of one device, and refused.json alone is written then, or if nothing
        was measured.
    """
    options = read_options(arguments)
    settings = {name: value for name, value in vars(options).items() if name not in ("output", "data")}
    cases = plan(options.devices, options.batch, options.steps, options.loss_steps)
    found, missing = measure(cases, settings, options.data)
    if len(found) < 2 or found[0]["global_batch"] != options.batch:
        tell("error: one device and one more case are needed for a table, and were not measured; see above.")
        return 1
    about = facts("cuda" if options.accelerator == "gpu" else "cpu", program="-m experiments.multi_gpu.scaling")
    problems = check(found, options.accelerator)
    if problems:
        tell("error: no speed is told of trainings that are not those of one device:\n" + "\n".join(problems))
        refused = options.output.expanduser() / "refused.json"
        refused.parent.mkdir(parents=True, exist_ok=True)
        write_json(refused, {"settings": settings, "facts": about, "cases": found, "problems": problems})
        tell(f"What was measured is in {refused}.")
        return 1
    config = Path(options.config)
    settings["config"] = str(config.relative_to(CHECKOUT) if config.is_relative_to(CHECKOUT) else config)
    result = {"settings": settings, "facts": about, "cases": found, "missing": missing}
    folder = options.output.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "scaling.json", result)
    (folder / "scaling.md").write_text(table(result))
    draw(result, folder / "scaling.png")
    print(f"{table(result)}\nwritten: {folder / 'scaling.json'}, scaling.md, scaling.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

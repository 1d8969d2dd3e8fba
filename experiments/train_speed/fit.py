"""How much of the bare step's speed has `python cli.py fit`, with curves and checkpoints?

python -m experiments.train_speed.fit --output experiments/train_speed/results_fit

Trains a model by `fit`, validated and saved every few steps as any run is, in a folder that is thrown away; then
measures the bare step of the same model and batch, as `python cli.py bench train` does, its correctness first. Both are
processes of their own, one after the other. If one of them fails, the exit status is 1.
"""

import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from experiments.multi_gpu.cases import CHECKOUT, LOG_CHARACTERS, figures, synthetic_data
from experiments.options import add_device, make_folder, parser_for, positive, seconds, warn_of_cpu
from lit_t6.bench.facts import facts, write_json
from lit_t6.bench.training.case import OURS, Case
from lit_t6.bench.training.process import run_case, wait_for
from lit_t6.model_reader import ModelReader


@dataclass(frozen=True)
class Run:
    """A training by `fit`.

    Args:
        config: file of a model and its recipe.
        batch: sequences of a step.
        steps: optimizer steps.
        check_every: steps between two validations, each with a checkpoint behind it.
        log_every: steps that one record of the speed is a mean of.
        warmup: steps whose speed does not count: compilation, allocation.
        device: where.
    """

    config: str
    batch: int
    steps: int
    check_every: int
    log_every: int
    warmup: int
    device: str

    def words(self, data: Path, folder: Path) -> list[str]:
        """Those of `python cli.py`.

        Args:
            data: prepared.
            folder: of curves and checkpoints.
        """
        kind = torch.device(self.device)
        typed = {
            "data.path": data,
            "data.batch_size": self.batch,
            "data.global_batch_size": self.batch,
            "trainer.accelerator": "gpu" if kind.type == "cuda" else "cpu",
            "trainer.devices": f"[{kind.index or 0}]" if kind.type == "cuda" else 1,
            "trainer.max_steps": self.steps,
            "trainer.log_every_n_steps": self.log_every,
            "trainer.val_check_interval": self.check_every,
            "trainer.limit_val_batches": 2,
            "trainer.enable_progress_bar": "false",
            "trainer.logger.init_args.save_dir": folder,
            "trainer.logger.init_args.name": "run",
            "auto_resume": "false",
        }
        return ["fit", f"--config={self.config}", *(f"--{name}={value}" for name, value in typed.items())]


def fit(run: Run, data: Path | None, limit: float) -> dict[str, Any]:
    """Train.

    Args:
        run: what.
        data: prepared; words that are drawn if not given.
        limit: seconds that it may take.

    Returns:
        `status`: "measured", with `figures` of the run, `checks` and `checkpoints`, bytes by name; or "failed", with
        `why` and the end of its `log`.
    """
    with tempfile.TemporaryDirectory(prefix="lit_t6_fit_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if data is None:
            data = synthetic_data(folder)
        log = folder / "log"
        paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(folder / "cache")}
        words = [sys.executable, str(CHECKOUT / "cli.py"), *run.words(data, folder)]
        with log.open("wb") as output:
            status = wait_for(words, environment, output, limit, CHECKOUT)
        place = folder / "run" / "version_0"
        saved = {file.name: file.stat().st_size for file in sorted((place / "checkpoints").glob("*.ckpt"))}
        if status == 0 and saved:
            found = figures(place, run.warmup)
            if found["tokens_per_sec"] is not None:
                return {"status": "measured", **found, "checks": checks(place, run), "checkpoints": saved}
        why = {None: f"it took longer than {limit:.0f} s", 0: "there is no checkpoint or no record of the speed"}
        text = log.read_text(errors="replace")[-LOG_CHARACTERS:]
        return {"status": "failed", "why": why.get(status, f"it ended with status {status}"), "log": text}


def checks(place: Path, run: Run) -> dict[str, float] | None:
    """What validations and checkpoints cost, by the clock.

    Args:
        place: folder of the run.
        run: that wrote it.

    Returns:
        `number` of them, between two records of which none is written at a check, `seconds` of each, and
        `tokens_per_sec` over all that time; None if no check lies between records.
    """
    events = EventAccumulator(str(place)).Reload()
    written = {event.step + 1: event.wall_time for event in events.Scalars("perf/step_ms")}
    counted = [step for step in sorted(written) if step >= run.warmup and step % run.check_every]
    number = counted[-1] // run.check_every - counted[0] // run.check_every if counted else 0
    if not number:
        return None
    first, last = counted[0], counted[-1]
    step_ms = {event.step + 1: event.value for event in events.Scalars("perf/step_ms")}
    trained = sum(step_ms[step] * run.log_every for step in step_ms if first < step <= last) / 1000
    whole = written[last] - written[first]
    tokens = {event.step + 1: event.value for event in events.Scalars("progress/tokens")}
    rate = (tokens[last] - tokens[first]) / whole
    return {"number": number, "seconds": (whole - trained) / number, "tokens_per_sec": rate}


def bare(run: Run, limit: float) -> dict[str, Any]:
    """Measure the step alone, after its check.

    Args:
        run: whose step.
        limit: seconds that it may take.

    Returns:
        As of `lit_t6.bench.training.process.run_case`.
    """
    config = ModelReader().read(["--config", run.config]).resolved()
    on_gpu = torch.device(run.device).type == "cuda"
    device = f"cuda:{torch.device(run.device).index or 0}" if on_gpu else run.device
    case = Case(
        name=Path(run.config).stem,
        code=OURS,
        config=config.to_dict(),
        batch=run.batch,
        seq_len=config.max_seq_len,
        steps=max(1, run.steps - run.warmup),
        warmup=run.warmup,
        precision="bf16-mixed" if on_gpu else "32-true",
        compile=on_gpu,
        seed=0,
        device=device,
    )
    return run_case(case, limit)


def table(found: dict[str, Any]) -> str:
    """All of it in Markdown.

    Args:
        found: as written to fit.json.
    """
    run, trained, alone = found["run"], found["fit"], found["bare"]
    lines = [
        f"{Path(run['config']).stem}, {run['batch']} sequences a step, {found['facts']['same']['device']}",
        "",
        "| | tokens/s | of the bare step |",
        "|---|---:|---:|",
        f"| the bare step | {alone['tokens_per_sec']:,.0f} | |",
        f"| `fit`, between checks | {trained['tokens_per_sec']:,.0f} | {found['of_bare']:.3f} |",
    ]
    kept = trained["checks"]
    if kept is not None:
        share = kept["tokens_per_sec"] / alone["tokens_per_sec"]
        lines.append(
            f"| `fit`, checks every {run['check_every']} steps | {kept['tokens_per_sec']:,.0f} | {share:.3f} |"
        )
        lines += ["", f"A check, validation and checkpoint, takes {kept['seconds']:.1f} s."]
    sizes = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in trained["checkpoints"].items())
    return "\n".join([*lines, "", f"Checkpoints: {sizes}."]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Train, measure the bare step, and write fit.json and fit.md.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status: 1 if something failed.
    """
    parser = parser_for("experiments.train_speed.fit", __doc__)
    parser.add_argument("--output", required=True, type=Path, help="folder for fit.json and fit.md")
    parser.add_argument("--config", default="configs/paper/medium-tpa.yaml", help="file of a model and its recipe")
    parser.add_argument("--batch", type=positive, default=20, help="sequences of a step")
    parser.add_argument("--steps", type=positive, default=140, help="optimizer steps by fit")
    parser.add_argument("--check_every", type=positive, default=50, help="steps between two checkpoints")
    parser.add_argument("--log_every", type=positive, default=5, help="steps that one record of the speed is a mean of")
    parser.add_argument("--warmup", type=positive, default=15, help="steps whose speed does not count")
    parser.add_argument("--data", type=Path, help="a prepared folder; drawn words if not given")
    parser.add_argument("--seconds", type=seconds, default=300, help="that each of the two may take")
    add_device(parser)
    args = parser.parse_args(arguments)
    if args.steps < args.warmup + 2 * args.log_every or args.check_every > args.steps:
        least = max(args.check_every, args.warmup + 2 * args.log_every)
        parser.error(
            f"--steps {args.steps}: expected at least {least}, for records after the warm-up and a checkpoint."
        )
    folder = make_folder(parser, args.output)
    small = "--config configs/quickstart.yaml --steps 8 --check_every 3 --log_every 1 --warmup 2 --batch 1"
    warn_of_cpu(args.device, args.batch * 1024, small)
    names = ("config", "batch", "steps", "check_every", "log_every", "warmup", "device")
    run = Run(**{name: getattr(args, name) for name in names})
    found: dict[str, Any] = {
        "run": asdict(run),
        "facts": facts(args.device, program="-m experiments.train_speed.fit"),
    }
    print(f"fit: {' '.join(run.words(Path('DATA'), Path('LOGS')))}", flush=True)
    found["fit"] = fit(run, args.data, args.seconds)
    if found["fit"]["status"] == "measured":
        print(f"fit: {found['fit']['tokens_per_sec']:,.0f} tokens/s between checks; the bare step …", flush=True)
        found["bare"] = bare(run, args.seconds)
    for name, right in (("fit", "measured"), ("bare", "timed")):
        if found.get(name, {"status": right})["status"] != right:
            print(f"{name}: {found[name]['why']}\n{found[name].get('log', '')}", file=sys.stderr)
            write_json(folder / "fit.json", found)
            return 1
    found["of_bare"] = found["fit"]["tokens_per_sec"] / found["bare"]["tokens_per_sec"]
    write_json(folder / "fit.json", found)
    (folder / "fit.md").write_text(table(found))
    print(table(found))
    print(f"written: {folder / 'fit.json'}, fit.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())

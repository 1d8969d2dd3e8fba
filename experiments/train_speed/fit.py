"""How much of the bare step's speed has `python cli.py fit`, with curves and checkpoints?

python -m experiments.train_speed.fit --output experiments/train_speed/results_fit

Trains a model by `fit`, validated and saved every few steps as any run is, in a folder that is thrown away; then
measures the bare step of the same model and batch, as `python cli.py bench train` does, its correctness first. Both are
processes of their own, one after the other. What an earlier run wrote there, fit.json and fit.md, is written over. If
one of the two fails, the exit status is 1.
"""

import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from experiments.options import add_device, make_folder, parser_for, positive, seconds, warn_of_cpu
from experiments.trained import figures, run_cli, synthetic_data
from lit_t6.bench.facts import facts, write_json
from lit_t6.bench.training.case import OURS, Case
from lit_t6.bench.training.process import run_case
from lit_t6.data import read_manifest
from lit_t6.model import T6Config
from lit_t6.model_reader import ModelReader

BARE_STEPS = 300
"""So many of the bare step are enough, however long `fit` trains."""


@dataclass(frozen=True)
class Run:
    """A training by `fit`, compiled on a GPU.

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

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on one."""
        return torch.device(self.device).type == "cuda"

    @property
    def precision(self) -> Literal["bf16-mixed", "32-true"]:
        """As Lightning names it."""
        return "bf16-mixed" if self.on_gpu else "32-true"

    @property
    def index(self) -> int:
        """Which GPU."""
        return torch.device(self.device).index or 0

    def around(self, records: list[int]) -> list[int]:
        """What the cost of checks is told from: the records behind the warm-up that are not at a check.

        Args:
            records: the steps behind which the speed is recorded, rising.
        """
        return [step for step in records if step >= self.warmup and step % self.check_every]

    def checks_between(self, first: int, last: int) -> int:
        """How many checks lie between two steps.

        Args:
            first: at no check.
            last: the same.
        """
        return last // self.check_every - first // self.check_every

    def words(self, data: Path, folder: Path) -> list[str]:
        """Those of `python cli.py`.

        Args:
            data: prepared.
            folder: of curves and checkpoints.
        """
        typed = {
            "data.path": data,
            "data.batch_size": self.batch,
            "data.global_batch_size": self.batch,
            "model.compile": str(self.on_gpu).lower(),
            "model.recompute": "none",
            "trainer.precision": self.precision,
            "trainer.accelerator": "gpu" if self.on_gpu else "cpu",
            "trainer.devices": f"[{self.index}]" if self.on_gpu else 1,
            "trainer.max_steps": self.steps,
            "trainer.log_every_n_steps": self.log_every,
            "trainer.val_check_interval": self.check_every,
            "trainer.limit_val_batches": 1,
            "trainer.enable_progress_bar": "false",
            "trainer.logger.init_args.save_dir": folder,
            "trainer.logger.init_args.name": "run",
            "auto_resume": "false",
        }
        return ["fit", f"--config={self.config}", *(f"--{name}={value}" for name, value in typed.items())]

    def case(self, config: T6Config) -> Case:
        """The bare step of the same.

        Args:
            config: of the model, its head count known.
        """
        return Case(
            name=Path(self.config).stem,
            code=OURS,
            config=config.to_dict(),
            batch=self.batch,
            seq_len=config.max_seq_len,
            steps=min(self.steps - self.warmup, BARE_STEPS),
            warmup=self.warmup,
            precision=self.precision,
            compile=self.on_gpu,
            seed=0,
            device=f"cuda:{self.index}" if self.on_gpu else self.device,
        )


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
        words = run.words(data or synthetic_data(folder), folder)
        if failed := run_cli(words, folder / "log", limit, {"XDG_CACHE_HOME": str(folder / "cache")}):
            return failed
        place = folder / "run" / "version_0"
        saved = {file.name: file.stat().st_size for file in sorted((place / "checkpoints").glob("*.ckpt"))}
        return {
            "status": "measured",
            **figures(place, run.warmup),
            "checks": checks(place, run),
            "checkpoints": saved,
        }


def checks(place: Path, run: Run) -> dict[str, Any]:
    """What validations and checkpoints cost, by the clock.

    Args:
        place: folder of the run.
        run: that wrote it.

    Returns:
        `seconds` of each, the mean of those between the same two records, and `tokens_per_sec` over all that time.
    """
    events = EventAccumulator(str(place)).Reload()
    of_steps = {event.step + 1: event for event in events.Scalars("perf/step_ms")}
    tokens = {event.step + 1: event.value for event in events.Scalars("progress/tokens")}
    trained, records = 0.0, sorted(of_steps)
    other: dict[int, float] = {}  # what the clock has beside steps, up to each record
    for before, step in pairwise([0, *records]):
        trained += of_steps[step].value * (step - before) / 1000
        other[step] = of_steps[step].wall_time - trained
    around = run.around(records)
    pairs = [(a, b, run.checks_between(a, b)) for a, b in pairwise(around)]
    seconds = [(other[b] - other[a]) / number for a, b, number in pairs for _ in range(number)]
    whole = of_steps[around[-1]].wall_time - of_steps[around[0]].wall_time
    return {"seconds": seconds, "tokens_per_sec": (tokens[around[-1]] - tokens[around[0]]) / whole}


def table(found: dict[str, Any]) -> str:
    """All of it in Markdown.

    Args:
        found: as written to fit.json.
    """
    run, trained, alone = found["run"], found["fit"], found["bare"]
    kept, bare = trained["checks"], alone["tokens_per_sec"]
    sizes = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in trained["checkpoints"].items())
    ten = trained["tokens_per_sec"] / bare * 600 / (600 + max(kept["seconds"]))
    each = ", then ".join(f"{seconds:.1f}" for seconds in kept["seconds"])
    lines = [
        f"{Path(run['config']).stem}, {run['batch']} sequences a step, {found['facts']['same']['device']}",
        "",
        "| | tokens/s | of the bare step |",
        "|---|---:|---:|",
        f"| the bare step | {bare:,.0f} | |",
        f"| `fit`, between checks | {trained['tokens_per_sec']:,.0f} | {found['of_bare']:.3f} |",
        f"| `fit`, checks included | {kept['tokens_per_sec']:,.0f} | {kept['tokens_per_sec'] / bare:.3f} |",
        "",
        f"A check, validation and checkpoint, is every {run['check_every']:,} steps and takes {each} s.",
        f"With one in 10 minutes, as fit saves by itself, {ten:.3f} of the bare step are left (reckoned).",
        f"Checkpoints: {sizes}.",
    ]
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--steps", type=positive, default=2100, help="optimizer steps by fit")
    parser.add_argument("--check_every", type=positive, default=1000, help="steps between two checkpoints")
    parser.add_argument("--log_every", type=positive, default=5, help="steps that one record of the speed is a mean of")
    parser.add_argument("--warmup", type=positive, default=15, help="steps whose speed does not count")
    parser.add_argument("--data", type=Path, help="a prepared folder; drawn words if not given")
    parser.add_argument("--seconds", type=seconds, default=600, help="that each of the two may take")
    add_device(parser)
    args = parser.parse_args(arguments)
    names = ("batch", "steps", "check_every", "log_every", "warmup", "device")
    run = Run(str(Path(args.config).expanduser().resolve()), **{name: getattr(args, name) for name in names})
    around = run.around(list(range(run.log_every, run.steps + 1, run.log_every)))
    if not around or not run.checks_between(around[0], around[-1]):
        parser.error(
            f"--steps {run.steps}: with --warmup {run.warmup}, --log_every {run.log_every} and --check_every "
            f"{run.check_every} no check lies between two records of the speed. More steps, or more records."
        )
    try:
        config = ModelReader().read(["--config", run.config]).resolved()
        data = None if args.data is None else args.data.expanduser().resolve()
        if data is not None:
            read_manifest(data)
    except (ValueError, OSError) as error:
        parser.error(str(error).replace("--data.path", "--data"))
    folder = make_folder(parser, args.output)
    small = "--config configs/quickstart.yaml --steps 8 --check_every 3 --log_every 1 --warmup 2 --batch 1"
    warn_of_cpu(args.device, args.batch * config.max_seq_len, small)
    (folder / "fit.md").unlink(missing_ok=True)
    found: dict[str, Any] = {
        "run": asdict(run) | {"config": args.config},
        "facts": facts(args.device, program="-m experiments.train_speed.fit"),
    }
    print(f"fit, {run.steps} steps …", flush=True)
    found["fit"] = fit(run, data, args.seconds)
    if found["fit"]["status"] == "measured":
        print(f"fit: {found['fit']['tokens_per_sec']:,.0f} tokens/s between checks; the bare step …", flush=True)
        found["bare"] = run_case(run.case(config), args.seconds)
    failed = [name for name in ("fit", "bare") if found.get(name, {}).get("status") in ("failed", "wrong", "no memory")]
    if not failed:
        found["of_bare"] = found["fit"]["tokens_per_sec"] / found["bare"]["tokens_per_sec"]
    write_json(folder / "fit.json", found)
    for name in failed:
        late = " (--seconds)" if "longer than" in found[name]["why"] else ""
        print(f"{found[name].get('log', '')}\n{name}: {found[name]['why']}{late}", file=sys.stderr)
    if failed:
        print(f"written: {folder / 'fit.json'}", file=sys.stderr)
        return 1
    (folder / "fit.md").write_text(table(found))
    print(f"{table(found)}\nwritten: {folder / 'fit.json'}, fit.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())

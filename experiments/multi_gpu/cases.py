"""What is trained in `scaling`: a command of `python cli.py fit` each, in a process with a time limit."""

import os
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from lit_t6.bench.training.process import wait_for
from lit_t6.data import prepare_corpus

CHECKOUT = Path(__file__).parents[2]
LOG_CHARACTERS = 4000
"""How much of the end of a failed process's output is shown."""
_WORDS = 6000
_DOCUMENTS, _WORDS_A_DOCUMENT = 600, 1000


@dataclass(frozen=True)
class Case:
    """One training.

    Args:
        devices: that take part.
        strategy: "one" for a single device, "ddp" or "fsdp".
        global_batch: sequences of an optimizer step, over all devices.
        steps: optimizer steps.
        micro_batches: in how many a device takes the sequences that it could take at once.
    """

    devices: int
    strategy: str
    global_batch: int
    steps: int
    micro_batches: int = 1

    @property
    def name(self) -> str:
        """As progress and tables say it."""
        halves = f", each batch in {self.micro_batches}" if self.micro_batches > 1 else ""
        return f"{self.devices} × {self.strategy}, {self.global_batch} sequences a step{halves}"


def plan(devices: list[int], batch: int, steps: int, loss_steps: int) -> list[Case]:
    """The trainings: one device; then, for each number of them, DDP, one device with the same global batch, FSDP.

    One device also takes its sequences in halves, if they are an even number: what that changes is rounding alone.

    Args:
        devices: numbers of devices, 1 first.
        batch: sequences a device.
        steps: of those whose speed counts.
        loss_steps: of one device with the global batch of several, whose losses count.
    """
    cases = [Case(1, "one", batch, steps)]
    for number in devices[1:]:
        whole = number * batch
        cases += [
            Case(number, "ddp", whole, steps),
            Case(1, "one", whole, loss_steps),
            *([Case(1, "one", whole, loss_steps, micro_batches=2)] if batch % 2 == 0 else []),
            Case(number, "fsdp", whole, steps),
        ]
    return cases


def synthetic_data(folder: Path) -> Path:
    """Prepared data of words that are drawn, frequent and rare ones as in a language; the same each time.

    Args:
        folder: to make it in.
    """
    drawn = random.Random(0)
    words = ["".join(drawn.choices("etaoinshrdlucmfw", k=drawn.randint(2, 9))) for _ in range(_WORDS)]
    weights = [1 / (rank + 3) for rank in range(_WORDS)]
    texts = folder / "texts"
    texts.mkdir()
    for number in range(_DOCUMENTS):
        text = " ".join(drawn.choices(words, weights, k=_WORDS_A_DOCUMENT))
        (texts / f"{number:04}.txt").write_text(text)
    prepare_corpus([texts], folder / "data", vocab_size=384, validation_fraction=0.01)
    return folder / "data"


def words_of(case: Case, settings: dict[str, Any], data: Path, folder: Path) -> list[str]:
    """The words of `python cli.py` for a case.

    Args:
        case: to train.
        settings: of the run: config, accelerator, batch, log_every, compile.
        data: prepared.
        folder: of the run's curves.
    """
    typed = {
        "data.path": data,
        "data.batch_size": settings["batch"] // case.micro_batches,
        "data.global_batch_size": case.global_batch,
        "trainer.accelerator": settings["accelerator"],
        "trainer.devices": case.devices,
        "trainer.strategy": "auto" if case.strategy == "one" else case.strategy,
        "trainer.max_steps": case.steps,
        "trainer.log_every_n_steps": settings["log_every"],
        "trainer.limit_val_batches": 0,
        "trainer.num_sanity_val_steps": 0,
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
        "trainer.logger.init_args.save_dir": folder,
        "trainer.logger.init_args.name": "run",
        "samples.max_new_tokens": 0,
        "auto_resume": "false",
        # The same rates whatever the number of steps, and high enough at once for the losses to say something.
        "model.optimizer.warmup_steps": 5,
        "model.optimizer.decay_steps": 1000,
    }
    if settings["compile"] is not None:
        typed["model.compile"] = settings["compile"]
    return ["fit", f"--config={settings['config']}", *(f"--{name}={value}" for name, value in typed.items())]


def run_on_each(
    case: Case, settings: dict[str, Any], data: Path, cache: Path, seconds: float, gpus: Sequence[str]
) -> dict[str, Any]:
    """Train a case of a single device on several GPUs at the same time, each by itself.

    GPUs of one kind differ by a percent or two, and the slowest sets the pace of all; and those of one host share its
    processor.

    Args:
        case: to train.
        settings: of the run.
        data: prepared.
        cache: as of `run_case`.
        seconds: likewise.
        gpus: as CUDA_VISIBLE_DEVICES names them.

    Returns:
        As of `run_case` for the first one, with `each`, tokens a second of all; or the first that failed.
    """
    with ThreadPoolExecutor(len(gpus)) as pool:
        started = [
            pool.submit(run_case, case, settings, data, cache, seconds, {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus
        ]
        found = [each.result() for each in started]
    failed = next((each for each in found if each["status"] != "measured"), None)
    return failed or found[0] | {"each": [each["tokens_per_sec"] for each in found]}


def run_case(
    case: Case,
    settings: dict[str, Any],
    data: Path,
    cache: Path,
    seconds: float,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train a case in processes of its own.

    Args:
        case: to train.
        settings: of the run.
        data: prepared.
        cache: for what is compiled, shared by all cases.
        seconds: it may take; then it is killed.
        variables: of its environment, over those of this process.

    Returns:
        The case's fields and `status`: "measured", with `tokens_per_sec` (over all devices, the median of the records
        after the warm-up) and `step_ms`, None if no record is, `peak_gib` (of the first device), `losses` and
        `grad_norms` by step; or "failed", with `why` and `log`.
    """
    with tempfile.TemporaryDirectory(prefix="lit_t6_scaling_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        log = folder / "log"
        words = [sys.executable, str(CHECKOUT / "cli.py"), *words_of(case, settings, data, folder)]
        paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(cache)}
        environment |= variables or {}
        with log.open("wb") as output:
            status = wait_for(words, environment, output, seconds, CHECKOUT)
        found: dict[str, Any] = asdict(case)
        if status != 0:
            why = f"it took longer than {seconds:.0f} s" if status is None else f"it ended with status {status}"
            return found | {"status": "failed", "why": why, "log": log.read_text(errors="replace")[-LOG_CHARACTERS:]}
        return found | {"status": "measured", **figures(folder / "run" / "version_0", settings["warmup"])}


def figures(folder: Path, warmup: int) -> dict[str, Any]:
    """What the curves of a run say.

    Args:
        folder: of the run.
        warmup: steps whose speed does not count: compilation, allocation.
    """
    events = EventAccumulator(str(folder)).Reload()
    tags = ("train/loss", "optim/grad_norm", "perf/tokens_per_sec", "perf/step_ms", "memory/peak_gib")
    by_tag = {tag: {event.step + 1: event.value for event in events.Scalars(tag)} for tag in tags}

    def settled(tag: str) -> float | None:
        """Median of the records that begin after the warm-up, if there are any."""
        steps = sorted(by_tag[tag])
        counted = [by_tag[tag][step] for before, step in zip([0, *steps], steps, strict=False) if before >= warmup]
        return statistics.median(counted) if counted else None

    return {
        "tokens_per_sec": settled("perf/tokens_per_sec"),
        "step_ms": settled("perf/step_ms"),
        "peak_gib": max(by_tag["memory/peak_gib"].values()),
        "losses": by_tag["train/loss"],
        "grad_norms": by_tag["optim/grad_norm"],
    }

"""What is trained in `scaling`: a command of `python cli.py fit` each, in a process with a time limit."""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.trained import figures, run_cli


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
        found: dict[str, Any] = asdict(case)
        words = words_of(case, settings, data, folder)
        failed = run_cli(words, folder / "log", seconds, {"XDG_CACHE_HOME": str(cache), **(variables or {})})
        if failed:
            return found | failed
        return found | {"status": "measured", **figures(folder / "run" / "version_0", settings["warmup"])}

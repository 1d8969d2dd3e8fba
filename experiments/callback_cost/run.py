"""What the callbacks cost: the same training with and without them, in turns, in one process.

python -m experiments.callback_cost.run --config configs/paper/small-tpa.yaml --data DATA --output results.json
"""

import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from experiments.options import make_folder, parser_for, positive
from lit_t6 import LitT6, T6Config, TokenDataModule
from lit_t6.training import OptimizerConfig, SaveForResume, SaveOnInterrupt, TrainingProgress, ValidateAtEnd
from lit_t6.training.callbacks import FactorDiagnostics, SampleWriter

PICTURE = ", with a picture"
SETTLING = 20  # steps that are not timed: compilation, allocation


class StepClock(Callback):
    """Seconds of wall time over the steps after the first `SETTLING`, validation and its callbacks apart."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = self.ended = 0.0
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == 1:
            print(f"first step after {_synchronized_time(pl_module) - self.started:.0f} s", flush=True)
        if trainer.global_step in (SETTLING, trainer.max_steps):
            now = _synchronized_time(pl_module)
            self.began, self.ended = (now, 0.0) if trainer.global_step == SETTLING else (self.began, now)

    def milliseconds_a_step(self, trainer: L.Trainer) -> float:
        return 1000 * (self.ended - self.began) / (trainer.max_steps - SETTLING)


class BareLitT6(LitT6):
    """The same module without the callbacks that it brings."""

    def configure_callbacks(self) -> list[Callback]:
        return []


def train(
    settings: dict[str, Any], data: str, batch_size: int, steps: int, folder: str, *, bare: bool
) -> dict[str, Any]:
    """One training; `bare` without callbacks and loggers. Milliseconds a step, and of each callback at a validation."""
    torch.manual_seed(0)
    elsewhere = ("optimizer", "compile", "recompute", "attention")
    model = {key: value for key, value in settings["model"].items() if key not in elsewhere}
    attention = settings["model"]["attention"]
    config = T6Config.from_dict({**T6Config().to_dict(), **model, "attention": attention})
    kind = BareLitT6 if bare else LitT6
    module = kind(config, OptimizerConfig(warmup_steps=10), compile=bool(settings["model"].get("compile")))
    clock = StepClock()
    logger = TensorBoardLogger(folder, default_hp_metric=False)
    trainer = L.Trainer(
        max_steps=steps,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        val_check_interval=steps * 10,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        gradient_clip_val=1.0,
        logger=False if bare else logger,
        enable_progress_bar=not bare,
        enable_model_summary=False,
        enable_checkpointing=not bare,
        callbacks=[clock] if bare else [clock, TrainingProgress(0.0), SaveForResume(), SaveOnInterrupt()],
        limit_val_batches=4,
        accelerator="auto",
        devices=1,
    )
    trainer.fit(module, TokenDataModule(data, batch_size, num_workers=4))
    step_ms = clock.milliseconds_a_step(trainer)
    interval = settings["trainer"]["val_check_interval"] * step_ms / 1000
    validation = {} if bare else _milliseconds_of_validation(trainer, module, interval)
    return {"step_ms": step_ms, "validation_ms": validation}


def _milliseconds_of_validation(trainer: L.Trainer, module: LitT6, interval: float) -> dict[str, float]:
    """What each of our callbacks takes at a validation, `interval` seconds after the last: done again and timed."""
    module.to(trainer.strategy.root_device)  # where it was until the training ended
    data: TokenDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by fit
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
    apart = StepClock | TrainingProgress | ValidateAtEnd | SaveOnInterrupt  # nothing of theirs happens at a validation
    ours = [c for c in callbacks if not isinstance(c, apart)]
    loader = iter(data.val_dataloader())
    batch = {name: value.to(module.device) for name, value in next(loader).items()}
    del loader
    trainer.fit_loop.epoch_loop.max_steps = -1  # at the end of a training a picture is drawn in any case
    timed: list[tuple[Callback | None, str]] = [(None, "")]  # the validation step alone, to be taken off
    timed += [(c, "") for c in ours] + [(c, PICTURE) for c in ours if isinstance(c, FactorDiagnostics)]
    taken: dict[str, list[float]] = {}
    for callback, picture in timed * 3:
        if isinstance(callback, FactorDiagnostics):
            callback._validations = 4 if picture else 3
        if isinstance(callback, SampleWriter):
            callback._since = time.perf_counter() - interval  # its text may take a share of the time since
        began = _synchronized_time(module)
        if callback:
            callback.on_validation_batch_start(trainer, module, batch, 0)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            module._nats(batch)
        if callback:
            callback.on_validation_batch_end(trainer, module, None, batch, 0)
            callback.on_validation_end(trainer, module)
        taken.setdefault(type(callback).__name__ + picture, []).append(1000 * (_synchronized_time(module) - began))
    alone = statistics.median(taken.pop("NoneType"))
    return {name: max(0.0, statistics.median(seen) - alone) for name, seen in taken.items()}


def _synchronized_time(module: L.LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main(arguments: list[str] | None = None) -> None:
    """Train in turns, print a table, write the numbers.

    Args:
        arguments: of the command line; those of the process if not given.
    """
    parser = parser_for("experiments.callback_cost.run", __doc__)
    parser.add_argument("--config", default="configs/paper/small-tpa.yaml", help="file of a model")
    parser.add_argument("--data", required=True, help="a prepared folder")
    parser.add_argument("--batch_size", type=positive, default=24, help="sequences of a step")
    parser.add_argument("--steps", type=positive, default=120, help="of each training")
    parser.add_argument("--turns", type=positive, default=3, help="trainings with and without each")
    parser.add_argument("--output", type=Path, help="a JSON file; printed only if not given")
    options = parser.parse_args(arguments)
    if options.output:
        make_folder(parser, options.output.parent)
    settings = yaml.safe_load(Path(options.config).read_text(encoding="utf-8"))
    torch.set_float32_matmul_precision("high")
    runs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.turns):
            for name in runs:  # what the first has compiled serves all
                given = (settings, options.data, options.batch_size, options.steps, folder)
                found = train(*given, bare=name == "without")
                runs[name].append(found)
                parts = {name: round(taken, 1) for name, taken in found["validation_ms"].items()}
                print(f"{name:<8} {found['step_ms']:.3f} ms a step; at a validation {parts or 'nothing'}", flush=True)
    without, with_ = (statistics.median(run["step_ms"] for run in runs[name]) for name in ("without", "with"))
    parts = {
        name: statistics.median(run["validation_ms"][name] for run in runs["with"])
        for name in runs["with"][0]["validation_ms"]
    }
    validation = sum(taken for name, taken in parts.items() if PICTURE not in name)
    picture = sum(taken - parts[name.removesuffix(PICTURE)] for name, taken in parts.items() if PICTURE in name)
    interval = settings["trainer"]["val_check_interval"]
    cost = (with_ - without + validation / interval) / without
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    print(f"{device}, torch {torch.__version__}: {without:.3f} ms a step without, {with_:.3f} ms with callbacks")
    a_step = validation / interval
    for name, taken in parts.items():
        print(f"  at a validation, {name:<32} {taken:7.1f} ms")
    print(f"at a validation they take {validation:.0f} ms; every {interval} steps, that is {a_step:.3f} ms a step")
    print(
        f"cost: {100 * cost:.2f} % of a step, and {100 * picture / interval / without:.2f} % more if all had pictures"
    )
    if options.output:
        plain = {"device": device, "torch": torch.__version__, "config": options.config, "cost": cost, "runs": runs}
        options.output.write_text(json.dumps({**plain, "validation_interval": interval}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What a trial's training tells the worker that started it: its steps, its figures; and whether it is to go on."""

import json
import os
import socket
import time
from contextlib import suppress
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from lit_t6.sweeps.records import METRICS, finite, read_metrics
from lit_t6.training.callbacks.model_checkpoint import SafeModelCheckpoint
from lit_t6.training.callbacks.run_facts import figures_of_run
from lit_t6.training.callbacks.throughput import Throughput, ends_training
from lit_t6.training.messages import say, warn
from lit_t6.training.places import home_of
from lit_t6.whole_files import replace_text

VARIABLE = "LIT_T6_TRIAL"
"""Tells the training's processes what their trial is, as JSON."""
_TELL_SECONDS = 2.0
_ANSWER_SECONDS = 10.0
"""How long a training waits for the worker's word; one that has not come is read at the next report."""


class ReportToStudy(Callback):
    """Reports to the worker of a sweep, and stops the training on all ranks where the study's pruner says so.

    Reports are by optimizer steps or tokens: the objective's last value, at the first moment at or after each multiple
    of `every` when there is a new one; or at every validation. The validation before the first step is none. Rank 0
    alone speaks with the worker, and tells the others what was said, at the step that they all are at.

    The last figures, of each validation and of the end, are written into metrics.json in the run's folder.

    It does nothing where no worker has started the training: the same command line can be run by hand.
    """

    def __init__(self) -> None:
        self._trial: dict[str, Any] | None = json.loads(os.environ.get(VARIABLE, "null"))
        self._socket: socket.socket | None = None
        self._received = b""
        self._told_at = float("-inf")
        self._reported = -1  # the last multiple
        self._step_before = 0
        self._waits = True
        self._kept: dict[str, Any] = {}  # what was written last

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._trial is None or not trainer.is_global_zero or self._socket is not None:
            return
        with suppress(OSError):
            self._socket = socket.socket(fileno=os.dup(self._trial["descriptor"]))

    def state_dict(self) -> dict[str, Any]:
        return {"reported": self._reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._reported = state_dict["reported"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._trial is None or trainer.global_step == self._step_before:
            return
        self._step_before = trainer.global_step
        if self._socket is not None and time.monotonic() - self._told_at > _TELL_SECONDS:
            self._told_at = time.monotonic()
            self._tell({"step": trainer.global_step, "of": max(0, trainer.max_steps), "time": time.time()})
        if not self._trial["metric"].startswith("val/"):
            self._report(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._trial is None or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._keep(trainer, pl_module, ended=False)
        if self._trial["metric"].startswith("val/"):
            self._report(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._trial is not None:
            self._keep(trainer, pl_module, ended=True)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._trial is not None and not self._kept:
            self._end_what_stands(trainer)
        if self._kept and self._kept["not_saved"] != (names := _not_saved(trainer)):  # savers come last at the end
            self._write(trainer, {**self._kept, "not_saved": names})

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # Pruning.

    def _report(self, trainer: L.Trainer) -> None:
        """Report, if it is time to; all ranks come here at the same steps."""
        assert self._trial is not None
        done = _tokens(trainer) if self._trial["unit"] == "tokens" else trainer.global_step
        every = self._trial["every"]
        multiple = done - done % every if every else done
        if not self._trial["prunes"] or multiple == 0 or multiple <= self._reported:
            return
        if self._trial["metric"] not in _figures(trainer):
            return
        self._reported = multiple
        ends = ends_training(trainer, trainer.global_step)
        stop = trainer.is_global_zero and self._ask(trainer, multiple) == "prune" and not ends
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True
            if trainer.is_global_zero:
                say(f"Pruned at step {trainer.global_step:,}: the study's pruner sees no use in going on.")

    def _ask(self, trainer: L.Trainer, at: int) -> str:
        value = _figures(trainer)[self._trial["metric"]] if self._trial else 0.0
        self._tell({"report": at, "value": value, "step": trainer.global_step, "of": max(0, trainer.max_steps)})
        return self._answer()

    def _tell(self, message: dict[str, Any]) -> None:
        if self._socket is None:
            return
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # the worker is gone: this process is about to be killed, or nobody is to know
            self._socket.close()
            self._socket = None

    def _answer(self) -> str:
        """The worker's last word; "go" where it says nothing in time."""
        if self._socket is None:
            return "go"
        self._socket.settimeout(_ANSWER_SECONDS if self._waits else 0.0)
        try:
            while b"\n" not in self._received:
                received = self._socket.recv(4096)
                if not received:
                    return "go"
                self._received += received
        except OSError:
            self._waits = False  # it sleeps, or waits for its storage; whatever it says will be read next time
            return "go"
        self._waits = True
        lines = self._received.split(b"\n")
        self._received = lines[-1]
        return "prune" if b"prune" in lines[:-1] else "go"

    # Figures.

    def _keep(self, trainer: L.Trainer, pl_module: L.LightningModule, ended: bool) -> None:
        assert self._trial is not None
        if not trainer.is_global_zero:
            return
        content = {
            "run": self._trial.get("run"),
            "step": trainer.global_step,
            "tokens": _tokens(trainer),
            "ended": ended,
            "metrics": {name: finite(value) for name, value in sorted(_figures(trainer).items())},
            "facts": figures_of_run(trainer, pl_module),
            "not_saved": _not_saved(trainer),
        }
        self._write(trainer, content)

    def _end_what_stands(self, trainer: L.Trainer) -> None:
        """A training that was killed between its last step and its end: no step is left, and its figures stand."""
        assert self._trial is not None
        if not trainer.is_global_zero or not ends_training(trainer, trainer.global_step):
            return
        stands = read_metrics(home_of(trainer)) or {}
        if stands.get("step") == trainer.global_step:
            self._write(trainer, {**stands, "run": self._trial.get("run"), "ended": True})

    def _write(self, trainer: L.Trainer, content: dict[str, Any]) -> None:
        self._kept = content
        path = home_of(trainer) / METRICS
        try:
            replace_text(path, json.dumps(content, indent=1) + "\n")
        except OSError as error:
            warn(f"{path}: {error.strerror}; the study will not know how this trial stands.")


def _figures(trainer: L.Trainer) -> dict[str, float]:
    """The last value of everything that was logged."""
    throughput = _throughput(trainer)
    latest = throughput.latest if throughput else {}
    figures = {name: value for name, value in latest.items() if name != "step"}
    return {**figures, **{name: float(value) for name, value in trainer.callback_metrics.items()}}


def _not_saved(trainer: L.Trainer) -> list[str]:
    """Names of the checkpoints that could not be written."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
    savers = [callback for callback in callbacks if isinstance(callback, SafeModelCheckpoint)]
    return [os.path.basename(path) for saver in savers for path in saver.not_saved]


def _tokens(trainer: L.Trainer) -> int:
    throughput = _throughput(trainer)
    return throughput.total_tokens if throughput else 0


def _throughput(trainer: L.Trainer) -> Throughput | None:
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
    return next((callback for callback in callbacks if isinstance(callback, Throughput)), None)

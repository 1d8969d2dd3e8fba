"""What a checkpoint holds beside weights, optimizer and data position, to be resumed as if nothing had happened."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_t6.data import TokenDataModule
from lit_t6.training.callbacks.loop_state import (
    go_on_after_last_step,
    is_mid_step,
    validates_nothing,
    validation_follows,
)
from lit_t6.training.callbacks.random_state import (
    RandomState,
    read_random_state,
    seed_random_state,
    write_random_state,
)
from lit_t6.training.checkpoint_choice import is_of_run
from lit_t6.training.places import home_of


class ExactResume(Callback):
    """Makes a resumed training go on as the undisturbed one would have, whenever and wherever it was saved.

    It keeps in every checkpoint: the random numbers of every rank; whether a validation was about to come, which is
    then done first; the last figures that others monitor, and which savers have saved or wait for the next figures;
    and the folder of the run, by which a checkpoint among those of other runs is known. A checkpoint that is written
    in the middle of a step, at an exception or of gradient accumulation, is one of the last whole step, since gradients
    are not saved; one from the middle of a validation, of before it. Where a run goes on with another number of ranks,
    those without a state get one drawn from the seed, the step and the rank. Where a run begins with another run's
    checkpoint, its savers do not take over that run's files: they would be replaced or removed.

    Saving asks all ranks for their states: every rank has to call `Trainer.save_checkpoint`, as Lightning wants it.
    """

    def __init__(self) -> None:
        self._began: RandomState | None = None  # the random numbers when the step or validation at hand began
        self._validating = False
        self._folder = ""  # of the run
        self._loaded: dict[str, Any] = {}
        self._postponed: dict[str, Any] = {}  # settings of the trainer while a validation is made up for

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        mid_step, savers = _is_mid_step(trainer), _savers(trainer)
        mine = self._began if mid_step or self._validating else None
        checkpoint["callbacks"][self.state_key] = {
            "folder": self._folder,
            "random_states": _gather(mine or read_random_state(trainer.strategy.root_device)),
            "seed": _seed(),
            "accumulate": trainer.accumulate_grad_batches,
            "samples_per_batch": _samples_per_batch(trainer),
            "validation_due": (self._validating or validation_follows(trainer)) and not mid_step,
            "savers": {s.state_key: (s._last_global_step_saved, s._defer_save_until_validation) for s in savers},
            "metrics": {name: _on_cpu(value) for name, value in trainer.callback_metrics.items()},
        }

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded = {}
        if trainer.state.fn != TrainerFn.FITTING or "loops" not in checkpoint:
            return
        state = dict(checkpoint["callbacks"].get(self.state_key, {}))
        state["validation_due"] = state.get("validation_due", False) and trainer.enable_validation
        now = trainer.accumulate_grad_batches, _samples_per_batch(trainer)
        go_on_after_last_step(
            checkpoint["loops"]["fit_loop"],
            state.get("accumulate", now[0]),
            state.get("samples_per_batch", now[1]),
            *now,
            validation_due=state["validation_due"],
        )
        self._loaded = {"step": checkpoint["global_step"], **state}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began, self._validating = None, False
        self._folder = trainer.strategy.broadcast(os.path.realpath(home_of(trainer)))
        loop = trainer.fit_loop.epoch_loop
        if self._loaded.get("validation_due") and loop.max_steps == self._loaded["step"]:
            self._postponed["max_steps"] = loop.max_steps
            loop.max_steps += 1  # or Lightning would see that all steps are done, and not even validate

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loaded, self._loaded = self._loaded, {}
        if not loaded:
            return
        trainer._logger_connector._callback_metrics.update(loaded.get("metrics", {}))
        may = trainer.fit_loop.epoch_loop._should_check_val_epoch() and not validates_nothing(trainer)
        due = loaded["validation_due"] and may
        if not due:
            self._go_on_as_set(trainer)
        path = trainer.ckpt_path
        is_of_another = path is not None and not is_of_run(
            Path(self._folder), Path(str(path)), loaded.get("folder", "")
        )
        for saver in _savers(trainer):
            last_saved, waits = loaded.get("savers", {}).get(saver.state_key, (-1, False))
            saver._defer_save_until_validation = waits
            has_saved = last_saved == trainer.global_step or _has_saved(saver, trainer.ckpt_path)
            if not (due and saver.every_n_epochs) and (has_saved or not waits):
                # Or it would save this step again, mid-way to the next.
                saver._last_global_step_saved = trainer.global_step
            if is_of_another:
                _forget_files(saver)
        if due:
            self._postponed["val_check_batch"] = trainer.val_check_batch
            trainer.val_check_batch = 1  # now; the reason may have been another than the interval
            trainer._last_val_time = float("-inf")  # type: ignore[attr-defined]  # set by its loop
        device, states = trainer.strategy.root_device, loaded.get("random_states", [])
        if trainer.global_rank < len(states):
            write_random_state(states[trainer.global_rank], device)
        elif states:
            seed_random_state(loaded["seed"], loaded["step"], trainer.global_rank)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Lightning counts the steps for its loggers apart, and loses one when it is resumed after some validations.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        accumulates = trainer.accumulate_grad_batches > 1
        may_save_mid_step = accumulates or any(saver.save_on_exception for saver in _savers(trainer))
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._began = read_random_state(trainer.strategy.root_device) if may_save_mid_step else None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._go_on_as_set(trainer)
        self._validating = True
        if not _is_mid_step(trainer):
            self._began = read_random_state(trainer.strategy.root_device)
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = max(0, trainer.global_step - (not loop._should_accumulate()))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating = False  # others, who save at this hook, come later

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._go_on_as_set(trainer)  # nothing was left to do, not even to begin

    def _go_on_as_set(self, trainer: L.Trainer) -> None:
        """The validation is under way, or there is none: from here on the trainer's own settings hold."""
        postponed, self._postponed = self._postponed, {}
        if "max_steps" in postponed:
            trainer.fit_loop.epoch_loop.max_steps = postponed["max_steps"]
        if "val_check_batch" in postponed:
            trainer.val_check_batch = postponed["val_check_batch"]


def _savers(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]


def _has_saved(saver: ModelCheckpoint, path: Any) -> bool:
    """Whether a file is one of a saver's own, which does not yet say in it that it has saved."""
    own = (saver.best_model_path, saver.last_model_path, *saver.best_k_models)
    return path is not None and os.path.realpath(path) in {os.path.realpath(name) for name in own if name}


def _forget_files(saver: ModelCheckpoint) -> None:
    """Let a saver rank as if it had saved nothing yet."""
    saver.last_model_path = saver.best_model_path = saver.kth_best_model_path = ""
    saver.best_k_models = {}
    saver.best_model_score = None
    saver.kth_value = torch.tensor(torch.inf if saver.mode == "min" else -torch.inf)


def _is_mid_step(trainer: L.Trainer) -> bool:
    progress = trainer.fit_loop.epoch_loop.batch_progress.state_dict()
    return is_mid_step(progress, trainer.accumulate_grad_batches)


def _gather(state: RandomState) -> list[RandomState]:
    """The states of all ranks, in their order."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


def _seed() -> int:
    return int(os.environ.get("PL_GLOBAL_SEED", 0))  # where seed_everything leaves it


def _samples_per_batch(trainer: L.Trainer) -> int:
    data = getattr(trainer, "datamodule", None)
    return trainer.world_size * (data.batch_size if isinstance(data, TokenDataModule) else 1)


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value

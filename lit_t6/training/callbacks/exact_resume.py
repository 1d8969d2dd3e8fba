"""What a checkpoint holds beside weights, optimizer and data position, to be resumed as if nothing had happened."""

import os
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_t6.data import TokenDataModule
from lit_t6.training.callbacks.loop_state import go_on_after_last_step, unfinished_batches
from lit_t6.training.callbacks.random_state import (
    RandomState,
    read_random_state,
    seed_random_state,
    write_random_state,
)


class ExactResume(Callback):
    """Makes a resumed training go on as the undisturbed one would have, whenever and wherever it was saved.

    It keeps in every checkpoint: the random numbers of every rank; whether a validation was about to come, which is
    then done first; and the last figures that others monitor. A checkpoint that is written in the middle of gradient
    accumulation is one of the last whole step, since gradients are not saved. Where a run goes on with another number
    of ranks, those without a state get one drawn from the seed, the step and the rank.

    Saving asks all ranks for their states: every rank has to call `Trainer.save_checkpoint`, as Lightning wants it.
    """

    def __init__(self) -> None:
        self._step_began: RandomState | None = None
        self._loaded: dict[str, Any] = {}
        self._postponed: dict[str, Any] = {}  # settings of the trainer while a validation is made up for

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        loop = trainer.fit_loop.epoch_loop
        accumulate = trainer.accumulate_grad_batches
        mine = read_random_state(trainer.strategy.root_device)
        if unfinished_batches(loop.batch_progress.state_dict(), accumulate) and self._step_began is not None:
            mine = self._step_began
        checkpoint["callbacks"][self.state_key] = {
            "random_states": _gather(mine),
            "seed": _seed(),
            "accumulate": accumulate,
            "samples_per_batch": _samples_per_batch(trainer),
            "validation_due": _validation_is_due(trainer),
            "metrics": {name: _on_cpu(value) for name, value in trainer.callback_metrics.items()},
        }

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded = {}
        if trainer.state.fn != TrainerFn.FITTING or "loops" not in checkpoint:
            return
        state = checkpoint["callbacks"].get(self.state_key, {})
        now = trainer.accumulate_grad_batches, _samples_per_batch(trainer)
        go_on_after_last_step(
            checkpoint["loops"]["fit_loop"],
            state.get("accumulate", now[0]),
            state.get("samples_per_batch", now[1]),
            *now,
            validation_due=state.get("validation_due", False),
        )
        self._loaded = {"step": checkpoint["global_step"], **state}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop
        if self._loaded.get("validation_due") and 0 < loop.max_steps <= self._loaded["step"]:
            self._postponed["max_steps"] = loop.max_steps
            loop.max_steps += 1  # or Lightning would see that all steps are done, and not even validate

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loaded, self._loaded = self._loaded, {}
        if not loaded:
            return
        trainer._logger_connector._callback_metrics.update(loaded.get("metrics", {}))
        for saver in trainer.checkpoint_callbacks:
            if isinstance(saver, ModelCheckpoint):
                saver._last_global_step_saved = (
                    trainer.global_step
                )  # or it would save this step again, mid-way to the next
        if loaded.get("validation_due"):
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
        if trainer.accumulate_grad_batches > 1 and batch_idx % trainer.accumulate_grad_batches == 0:
            self._step_began = read_random_state(trainer.strategy.root_device)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        loop = trainer.fit_loop.epoch_loop
        if "max_steps" in self._postponed:
            loop.max_steps = self._postponed["max_steps"]
        if "val_check_batch" in self._postponed:
            trainer.val_check_batch = self._postponed["val_check_batch"]
        self._postponed = {}
        loop._batches_that_stepped = max(0, trainer.global_step - (not loop._should_accumulate()))


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


def _validation_is_due(trainer: L.Trainer) -> bool:
    """Whether the batch at hand is done and will be followed by a validation."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    total = loop.batch_progress.state_dict()["total"]
    at_its_end = total["ready"] == total["processed"] != total["completed"]
    if not trainer.training or fetcher is None or not at_its_end:
        return False
    return loop._should_check_val_fx(fetcher)


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value

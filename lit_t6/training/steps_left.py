"""Whether a training has a step left to take: told before a folder is made for it."""

from pathlib import Path
from typing import Any

import lightning as L

from lit_t6.training.callbacks.loop_state import go_on_after_last_step
from lit_t6.training.checkpoint_choice import read_inside

_UNITS = {"max_steps": "step", "max_epochs": "epoch"}


def check_limits(trainer: L.Trainer) -> None:
    """Refuse limits under which no step would be taken, or that mean nothing.

    Args:
        trainer: of the training.

    Raises:
        ValueError: a limit of 0.
    """
    for name in ("max_steps", "max_epochs", "limit_train_batches"):
        if getattr(trainer, name) == 0:
            endless = "" if name == "limit_train_batches" else ", or -1 for no such limit"
            raise ValueError(f"trainer.{name}=0: nothing would be trained; give a number above 0{endless}.")
    if getattr(trainer, "val_check_interval", None) == 0:
        raise ValueError(
            "trainer.val_check_interval=0: expected a number of steps from 1, a share of an epoch, or a time; to "
            "validate nothing, set --trainer.limit_val_batches 0."
        )


def check_steps_left(trainer: L.Trainer, path: str | Path) -> int:
    """Refuse to go on from a checkpoint that has reached the trainer's limits of steps or epochs.

    One that was saved before the validation at its end has that left to do.

    Args:
        trainer: of the training.
        path: of the checkpoint; what is none, or holds weights alone, is left to others to refuse.

    Returns:
        Optimizer steps at the checkpoint.

    Raises:
        ValueError: nothing is left to train.
    """
    content = read_inside(Path(path))
    step = int(content.get("global_step", 0))
    due = trainer.limit_val_batches != 0 and _state(content).get("validation_due", False)
    for name, at in limits_reached(content, trainer.max_steps, trainer.max_epochs, due).items():
        if name == "max_epochs" or not (due and step == trainer.max_steps):
            raise _nothing_left(path, f"{_UNITS[name]} {at:,}", name, getattr(trainer, name), 2 * at)
    return step


def limits_reached(
    content: dict[str, Any], max_steps: int, max_epochs: int | None, validation_due: bool = False
) -> dict[str, int]:
    """Which of "max_steps" and "max_epochs" a checkpoint has reached, and how many steps and epochs it has done.

    Args:
        content: of the checkpoint, its counters are rewritten; weights alone have reached nothing.
        max_steps: -1 is no limit.
        max_epochs: -1 and None are no limit.
        validation_due: a validation is still to be done, and the epoch that it ends is not over.
    """
    if "loops" not in content or "optimizer_states" not in content:
        return {}
    loops, accumulate = content["loops"]["fit_loop"], _state(content).get("accumulate", 1)
    go_on_after_last_step(loops, accumulate, 1, accumulate, 1, validation_due)
    done = {"max_steps": int(content["global_step"]), "max_epochs": loops["epoch_progress"]["current"]["processed"]}
    limits = {"max_steps": max_steps, "max_epochs": max_epochs or -1}
    return {name: at for name, at in done.items() if 0 < limits[name] <= at}


def _state(content: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = content.get("callbacks", {}).get("ExactResume", {})
    return state


def _nothing_left(path: str | Path, at: str, name: str, limit: int, more: int) -> ValueError:
    return ValueError(
        f"{path}: is at the end of {at}, and trainer.{name}={limit}: nothing is left to train. To go on, raise the "
        f"limit, as with --trainer.{name} {more}."
    )

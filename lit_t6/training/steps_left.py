"""Whether a training has a step left to take: told before a folder is made for it."""

from pathlib import Path

import lightning as L

from lit_t6.training.callbacks.loop_state import go_on_after_last_step
from lit_t6.training.checkpoint_choice import read_inside


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
    if "loops" not in content or "optimizer_states" not in content:
        return step
    state = content.get("callbacks", {}).get("ExactResume", {})
    due = state.get("validation_due", False) and trainer.limit_val_batches != 0
    if 0 < trainer.max_steps <= step and not (due and step == trainer.max_steps):
        raise _nothing_left(path, f"step {step:,}", "max_steps", trainer.max_steps, 2 * step)
    loops = content["loops"]["fit_loop"]
    go_on_after_last_step(loops, state.get("accumulate", 1), 1, state.get("accumulate", 1), 1, validation_due=due)
    epochs = loops["epoch_progress"]["current"]["processed"]
    if trainer.max_epochs is not None and 0 < trainer.max_epochs <= epochs:
        raise _nothing_left(path, f"epoch {epochs:,}", "max_epochs", trainer.max_epochs, 2 * epochs)
    return step


def _nothing_left(path: str | Path, at: str, name: str, limit: int, more: int) -> ValueError:
    return ValueError(
        f"{path}: is at the end of {at}, and trainer.{name}={limit}: nothing is left to train. To go on, raise the "
        f"limit, as with --trainer.{name} {more}."
    )

"""What is said at the end of a training."""

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_t6.training.messages import say


def say_outcome(trainer: L.Trainer, goes_on_from: str | None, steps_before: int) -> None:
    """Say what came out and what can be done with it.

    Args:
        trainer: of the training.
        goes_on_from: the checkpoint that the training began with, if one.
        steps_before: optimizer steps at that.
    """
    figures = trainer.callback_metrics
    if goes_on_from is not None and trainer.global_step == steps_before and not figures:
        say(
            f"No step was taken: {goes_on_from} is at step {steps_before:,}, and a limit that it had reached, such as "
            f"trainer.max_time, ended the training there. To go on, raise the limit."
        )
        return
    if "val/loss" in figures and "val/bits_per_byte" in figures:
        say(f"val/loss {figures['val/loss']:.4f}, {figures['val/bits_per_byte']:.4f} bits per byte")
    saver = trainer.checkpoint_callback
    if not isinstance(saver, ModelCheckpoint):
        return
    if saver.best_model_path and saver.best_model_score is not None:
        say(f"Best {saver.monitor} {saver.best_model_score:.4f}: {saver.best_model_path}")
    if last := saver.last_model_path or saver.best_model_path:
        say(f"Next: python cli.py generate --ckpt_path {last} --prompt 'It was'")

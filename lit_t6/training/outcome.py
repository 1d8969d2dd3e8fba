"""What is said at the end of a training."""

import math

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_t6.training.callbacks import TrainingProgress
from lit_t6.training.callbacks.validation_figures import describe, is_finite
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
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
    told = any(isinstance(bar, TrainingProgress) and bar.told_at == trainer.global_step for bar in callbacks)
    if not told and (described := describe(figures)):
        say(described)
    finite = is_finite(figures)
    if not finite:
        say("The last validation was not finite: these weights are of no use; its warning says what may help.")
    saver = trainer.checkpoint_callback
    if not isinstance(saver, ModelCheckpoint):
        return
    score, best, last = saver.best_model_score, saver.best_model_path, saver.last_model_path
    ranked = bool(best) and score is not None and math.isfinite(score)  # Lightning's own ranks NaN as infinity
    if ranked:
        say(f"Best {saver.monitor} {score:.4f}: {best}")
    if path := (last or best) if finite else best if ranked else "":
        say(f"Next: python cli.py generate --ckpt_path {path} --prompt 'It was'")

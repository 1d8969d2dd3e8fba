"""What a validation within a training came to, in words."""

import math
from collections.abc import Mapping
from typing import Any

import lightning as L

from lit_t6.training.messages import warn

_WIDER = {"16-true": "bf16-mixed", "16-mixed": "bf16-mixed", "bf16-true": "bf16-mixed", "bf16-mixed": "32-true"}
"""Of a precision, that to try when its numbers end."""


def describe(figures: Mapping[str, Any]) -> str:
    """The loss, and bits per byte where they are known; empty without a loss.

    Args:
        figures: of a validation, by the names that they are logged under.
    """
    if "val/loss" not in figures:
        return ""
    bits = f", {figures['val/bits_per_byte']:.4f} bits per byte" if "val/bits_per_byte" in figures else ""
    return f"val/loss {figures['val/loss']:.4f}{bits}"


def is_finite(figures: Mapping[str, Any]) -> bool:
    """Whether the loss of a validation, if there is one, is a number.

    Args:
        figures: of a validation, by the names that they are logged under.
    """
    return math.isfinite(figures.get("val/loss", 0.0))


def warn_if_not_finite(trainer: L.Trainer) -> None:
    """Warn of a validation whose loss is not finite, and say what may help.

    Args:
        trainer: of the training, its validation done.
    """
    figures = trainer.callback_metrics
    if is_finite(figures) or not trainer.is_global_zero:
        return
    precision = str(trainer.precision)
    wider = _WIDER.get(precision)
    remedy = f", or --trainer.precision {wider} instead of {precision}" if wider else ""
    warn(
        f"validation at step {trainer.global_step:,}: val/loss is {float(figures['val/loss']):g}, not a finite number: "
        f"the model is of no use as it is. Training goes on. If this stays, start again, or go on from a checkpoint "
        f"before it, with a smaller --model.optimizer.lr, more warmup_steps{remedy}."
    )

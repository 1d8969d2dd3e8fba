"""Figures that callbacks watch, such as that by which the best checkpoint is chosen: are they ever logged."""

import lightning as L
from lightning.pytorch.callbacks import Callback, LearningRateMonitor

from lit_t6.command_line.complaints import nearest
from lit_t6.training.callbacks import SafeModelCheckpoint

FIGURES = ("val/loss", "val/perplexity", "val/bits_per_byte", "train/loss", "epoch", "step")
"""What a callback can watch when a validation ends."""

MODES = ("min", "max")
"""Which of a figure's values is the best."""


def check_monitors(trainer: L.Trainer) -> None:
    """Refuse a figure to watch that nobody logs, which Lightning finds at the first validation only.

    Where callbacks of the user's may log others, that is left to Lightning.

    Args:
        trainer: of the training.

    Raises:
        ValueError: an unknown figure.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
    if any(_may_log_others(callback) for callback in callbacks):
        return
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in FIGURES:
            saves = isinstance(callback, SafeModelCheckpoint)
            option = "checkpoint.monitor" if saves else f"{type(callback).__name__}: monitor"
            raise ValueError(
                f"{option}: {monitor!r} is not logged{nearest(monitor, FIGURES)} There are {', '.join(FIGURES)}."
            )


def check_mode(mode: str) -> None:
    """Refuse a way of comparing that there is not.

    Args:
        mode: of the checkpoints, by which the best one is found.

    Raises:
        ValueError: another mode.
    """
    if mode not in MODES:
        raise ValueError(
            f"checkpoint.mode: {mode!r} is not one of its values{nearest(mode, MODES)} There are {', '.join(MODES)}: "
            f"whether the least or the most of checkpoint.monitor is the best."
        )


def _may_log_others(callback: Callback) -> bool:
    ours = type(callback).__module__.startswith(("lit_t6.", "lightning."))
    return not ours or isinstance(callback, LearningRateMonitor)

"""The commands that run Lightning's Trainer, what each is for, and what they can be asked for."""

from collections.abc import Sequence
from importlib.util import find_spec

PURPOSES = {
    "fit": "Train a model. Configuration files stack, later ones win, and every option can be typed, in any order.",
    "validate": "Loss, perplexity and bits per byte of a checkpoint on the validation split.",
    "test": "Loss, perplexity and bits per byte of a checkpoint on the test split.",
    "predict": "Loss and bits per byte of every document, as JSON lines (predictions.path).",
}
TRAINERS = tuple(PURPOSES)


def check_that_a_model_is_named(command: str, options: Sequence[str]) -> None:
    """Refuse an evaluation of nothing.

    Args:
        command: one of the trainers.
        options: the words, arranged; all of them known, else it is that which is wrong.

    Raises:
        ValueError: an evaluation without a checkpoint and without options of a model.
    """
    about_a_model = ("--ckpt_path", "--config", "--model", "-h", "--help", "--print_config")
    if command != "fit" and not any(option.startswith(about_a_model) for option in options):
        raise ValueError(
            f"{command} needs --ckpt_path, the checkpoint to evaluate; with --config alone it takes the model as it "
            f"starts, untrained."
        )


def has_transformer_engine() -> bool:
    """Whether the package is installed that the precisions "transformer-engine…" of Lightning's Trainer need."""
    return find_spec("transformer_engine") is not None

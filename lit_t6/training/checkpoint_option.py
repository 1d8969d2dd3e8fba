"""`--ckpt_path`: the file of a checkpoint, which brings options of its own."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from lit_t6.training.checkpoint import read_checkpoint

_LIGHTNINGS_WORDS = ("last", "best", "hpc")
"""What Lightning takes for a checkpoint of the Trainer that has just trained; a command's has trained nothing yet."""


def check_that_a_file_is_named(checkpoint: str | None, command: str | None) -> None:
    """Refuse a word of Lightning's, typed, or of a YAML file.

    Args:
        checkpoint: what `--ckpt_path` says.
        command: fit, validate, test or predict.

    Raises:
        ValueError: it does not say of which run.
    """
    if checkpoint in _LIGHTNINGS_WORDS:
        without = " Without --ckpt_path the same command goes on with its unfinished run."
        raise ValueError(
            f"--ckpt_path {checkpoint}: does not say of which run; give the file of a checkpoint, such as "
            f"logs/NAME/version_0/checkpoints/last.ckpt.{without if command == 'fit' else ''}"
        )


def over_those_of_checkpoint(
    options: Sequence[str], checkpoint: str | None, command: str, folder: str | Path
) -> list[str]:
    """Options, and below them those of the checkpoint, if one is named.

    Args:
        options: as typed, arranged.
        checkpoint: what `--ckpt_path` says in them.
        command: fit, validate, test or predict.
        folder: for a file that is there while the options are read.

    Raises:
        ValueError: it cannot be read, or nothing says what data to take.
    """
    if checkpoint is None or checkpoint in (*_LIGHTNINGS_WORDS, "null"):
        return list(options)
    trained = read_checkpoint(checkpoint).options()
    if "data" not in trained and not any(o.startswith(("--data", "--config")) for o in options):
        raise ValueError(f"{checkpoint}: does not say what data it belongs to; pass --data.path.")
    if command == "predict" and "data" in trained:
        trained["data"]["eval_windows"] = None  # meant for figures of a training, not for documents
    from_checkpoint = Path(folder) / "checkpoint.yaml"
    from_checkpoint.write_text(yaml.safe_dump(trained), encoding="utf-8")
    return ["--config", str(from_checkpoint), *options]

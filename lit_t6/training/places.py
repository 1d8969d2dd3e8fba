"""Where a training keeps what it writes."""

import os
from pathlib import Path

import lightning as L


def run_folder(save_dir: str | Path, name: str | None, version: int | str | None) -> Path:
    """The folder of a run: its curves, its configuration, and `checkpoints/`.

    Args:
        save_dir: of the logger; `~` and variables of the environment are read as TensorBoardLogger reads them.
        name: of the experiment; None and empty make no folder.
        version: a number, or a name.
    """
    folder = Path(save_dir) / (name or "") / (version if isinstance(version, str) else f"version_{version}")
    return Path(os.path.expanduser(os.path.expandvars(folder)))


def home_of(trainer: L.Trainer) -> Path:
    """The folder of a training's run; without a logger, that which the trainer writes to by default."""
    return folder_of(trainer) or Path(trainer.default_root_dir)


def folder_of(trainer: L.Trainer) -> Path | None:
    """The folder of a training's run, by its first logger; None where it has none.

    A process that is not the first may think of another version: what all must know, the first has to tell them.
    """
    if not trainer.loggers:
        return None
    logger = trainer.loggers[0]
    return run_folder(logger.save_dir or trainer.default_root_dir, str(logger.name), logger.version)

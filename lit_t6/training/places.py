"""Where a training keeps what it writes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands that train nothing check their outputs here, and need not wait for it
    import lightning as L


def expand(path: str | Path) -> str:
    """A path with `~` and variables of the environment read, as TensorBoardLogger reads its own.

    Args:
        path: as typed; an address (s3://…) stays one.
    """
    return os.path.expanduser(os.path.expandvars(path))


def run_folder(save_dir: str | Path, name: str | None, version: int | str | None) -> Path:
    """The folder of a run: its curves, its configuration, and `checkpoints/`.

    Args:
        save_dir: of the logger; all of the path is expanded.
        name: of the experiment; None and empty make no folder.
        version: a number, or a name; None and empty make no folder.
    """
    last = "" if version is None else version if isinstance(version, str) else f"version_{version}"
    return Path(expand(Path(save_dir) / (name or "") / last))


def make_run_folder(folder: Path) -> None:
    """Make the folder of a run, if it is not there.

    Args:
        folder: of the run.

    Raises:
        ValueError: it cannot be made there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder}: the folder of the run cannot be made ({error.strerror}). Choose another place with "
            f"--trainer.logger.init_args.save_dir."
        ) from error


def folder_without_logger(root: str | Path | None) -> str:
    """A new folder for a training without a logger, which would count its versions: `logs/no_logger/version_N`.

    Args:
        root: the trainer's `default_root_dir`; None is the working directory, and in an address (s3://…) nothing is
            counted.
    """
    if "://" in str(root):
        return str(root)
    runs = Path(expand(root or "."), "logs", "no_logger")
    taken = [int(n) for path in runs.glob("version_*") if (n := path.name.removeprefix("version_")).isdigit()]
    return str(runs / f"version_{max(taken, default=-1) + 1}")


def home_of(trainer: "L.Trainer") -> Path:
    """The folder of a training's run; without a logger, that which the trainer writes to by default.

    Args:
        trainer: of the training.
    """
    return folder_of(trainer) or Path(trainer.default_root_dir)


def is_rehearsal(trainer: "L.Trainer") -> bool:
    """Whether a trainer only tries out a few batches (`fast_dev_run`): nothing is kept of those.

    Args:
        trainer: of the training.
    """
    return bool(getattr(trainer, "fast_dev_run", False))


def folder_of(trainer: "L.Trainer") -> Path | None:
    """The folder of a training's run, by its first logger; None where it has none, as in a rehearsal.

    A process that is not the first may think of another version: what all must know, the first has to tell them.

    Args:
        trainer: of the training.
    """
    if not trainer.loggers or is_rehearsal(trainer):
        return None
    logger = trainer.loggers[0]
    return run_folder(logger.save_dir or trainer.default_root_dir, logger.name, logger.version)


def check_output(path: str | Path, option: str, example: str, overwrite: bool, asks: str = "--overwrite true") -> None:
    """Refuse to write where something is, before anything is computed.

    Args:
        path: of the file to write.
        option: by which it was given.
        example: of a name of a file.
        overwrite: a file that is there may be replaced.
        asks: the option that says so.

    Raises:
        ValueError: a folder, or a file that may not be replaced.
    """
    if Path(path).is_dir():
        raise ValueError(f"{option} {path}: is a folder; name a file in it, such as {Path(path) / example}.")
    if Path(path).exists() and not overwrite:
        raise ValueError(f"{path}: exists already; give another {option}, or {asks} to replace it.")

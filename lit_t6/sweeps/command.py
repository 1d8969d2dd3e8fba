"""A trial as the command line that a person would type."""

import sys
from pathlib import Path

from lit_t6.sweeps.cells import Cell, fit_options
from lit_t6.sweeps.study import Study


def fit_command(study: Study, cell: Cell, seed: int, folder: Path) -> list[str]:
    """The words of a process that trains one cell with one seed.

    The same words go on with the trial where it was interrupted.

    Args:
        study: whose files and options come first.
        cell: whose files and options come over them.
        seed: of the weights, and of the order of the data unless the study sets `data.seed`.
        folder: of the trial: curves, configuration and checkpoints lie directly in it.

    Returns:
        The interpreter, the front door, "fit", and its options.
    """
    return [*front_door(), "fit", *fit_options(study, cell), *own_options(study, cell, seed, folder)]


def own_options(study: Study, cell: Cell, seed: int, folder: Path) -> list[str]:
    """The options of `fit` that the sweep itself sets; arguments as of `fit_command`."""
    ordered = "data.seed" in {**study.options, **cell.options}
    return [
        f"--seed_everything={seed}",
        *([] if ordered else [f"--data.seed={seed}"]),
        f"--trainer.devices={study.gpus_per_trial}",
        *_log_to(folder),
    ]


def front_door() -> list[str]:
    """What `python cli.py` is: the file beside the package where it is a working tree, else the installed package."""
    script = Path(__file__).resolve().parents[2] / "cli.py"
    if script.is_file() and "lit_t6" in script.read_text(encoding="utf-8"):
        return [sys.executable, str(script)]
    return [sys.executable, "-m", "lit_t6"]


def _log_to(folder: Path) -> list[str]:
    """A logger whose run is in this very folder: the name is empty, so that no name can be read as null or a number."""
    logger = "--trainer.logger"
    return [
        f"{logger}=lightning.pytorch.loggers.TensorBoardLogger",
        f"{logger}.init_args.save_dir={folder.parent}",
        f"{logger}.init_args.name=",
        f"{logger}.init_args.version={folder.name}",
        f"{logger}.init_args.default_hp_metric=false",
    ]

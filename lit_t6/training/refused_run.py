"""What a training that was refused leaves behind: nothing."""

import contextlib
from collections.abc import Iterator

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_t6.training.places import folder_of
from lit_t6.training.run_lock import LOCK_NAME, hold_folder
from lit_t6.training.runs import CONFIG_NAME
from lit_t6.training.tensorboard_logger import LastingTensorBoardLogger

_OF_EVERY_RUN = (CONFIG_NAME, LOCK_NAME, LastingTensorBoardLogger.NAME_HPARAMS_FILE)


@contextlib.contextmanager
def leaving_nothing(trainer: L.Trainer) -> Iterator[None]:
    """Remove the folder of a run that ends with an error of the user's before its first step.

    Lightning has loggers make their folders before trainer, data and checkpoint are looked at. A folder stays that was
    there before, that holds anything but what every run begins with, or that another process works in.

    Args:
        trainer: of the training, not started yet.
    """
    try:
        yield
    except (ValueError, OSError, MisconfigurationException):
        if trainer.is_global_zero and trainer.global_step == 0:
            _remove_new_folder(trainer)
        raise


def _remove_new_folder(trainer: L.Trainer) -> None:
    folder = folder_of(trainer)
    made = [path for logger in trainer.loggers for path in getattr(logger, "new_folders", [])]
    if folder is None or folder not in made:
        return
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if any(path.name not in _OF_EVERY_RUN and not path.name.startswith("events.out.tfevents.") for path in files):
        return
    with contextlib.suppress(OSError):  # a folder more is no error of its own
        held = hold_folder(folder)
        if held is None:
            return
        with held:
            for path in {*files, folder / LOCK_NAME}:
                path.unlink()
        for path in sorted({*folder.rglob("*"), *made}, key=lambda path: len(path.parts), reverse=True):
            path.rmdir()  # those around it are not empty if another run is there

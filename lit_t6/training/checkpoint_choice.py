"""Which of several checkpoints to go on from."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lit_t6.training.callbacks.save_for_resume import FOLDER
from lit_t6.training.checkpoint_files import DamagedCheckpoint, verify_file


def newest_whole(paths: Iterable[Path]) -> tuple[Path | None, list[DamagedCheckpoint]]:
    """The checkpoint of the latest step that is whole.

    Those with the state of a training come before those with weights alone; then the step inside decides, and the time
    of writing between equal steps only: copying a folder gives its files times in any order, and in one run the step
    says all, since a step taken again gives the same.

    Args:
        paths: of one run.

    Returns:
        Its path, None where none is whole; and what is wrong with those that would have come before it. A file whose
        step cannot be read comes first.
    """
    damaged: list[DamagedCheckpoint] = []
    for path in sorted(paths, key=_age, reverse=True):
        try:
            verify_file(path)
            if not _inside(path):
                raise DamagedCheckpoint(path, "it holds no training of Lightning's")
        except DamagedCheckpoint as error:
            damaged.append(error)
        except OSError as error:
            damaged.append(DamagedCheckpoint(path, f"it cannot be read ({error.strerror})"))
        else:
            return path, damaged
    return None, damaged


def checkpoints_beside(path: Path) -> list[Path]:
    """The other checkpoints of the run that a file is of, as far as its folder tells."""
    folder = path.parent.parent if path.parent.name == FOLDER else path.parent
    return [p for p in (*folder.glob("*.ckpt"), *folder.glob(f"{FOLDER}/*.ckpt")) if p != path]


def _age(path: Path) -> tuple[bool, float, float]:
    content = _inside(path)
    try:
        written = path.stat().st_mtime
    except OSError:  # removed by now
        written = 0.0
    if not content:
        return True, float("inf"), written
    return "optimizer_states" in content, float(content["global_step"]), written


def _inside(path: Path) -> dict[str, Any]:
    """A checkpoint's dictionary, its tensors left in the file; empty if it is none."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # bytes that are no pickle raise anything; verify_file says what is wrong
        return {}
    known = isinstance(content, dict) and isinstance(content.get("global_step"), int)
    return content if known else {}

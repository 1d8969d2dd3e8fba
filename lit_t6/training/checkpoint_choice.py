"""Which of several checkpoints to go on from."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lit_t6.training.checkpoint_files import FOLDER, META, DamagedCheckpoint, is_sharded, verify_file
from lit_t6.training.messages import warn


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
            if not read_inside(path):
                raise DamagedCheckpoint(path, "it holds no training of Lightning's")
        except DamagedCheckpoint as error:
            damaged.append(error)
        except OSError as error:
            damaged.append(DamagedCheckpoint(path, f"it cannot be read ({error.strerror})"))
        else:
            return path, damaged
    return None, damaged


def to_go_on_from(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """The checkpoints that a run can go on from, and those that cannot be read; tells of the others on stderr.

    Weights alone are no training to go on with. Another run's checkpoints are among `paths` where several save into
    one folder, by `checkpoint.dirpath`; what lies in the run's own folder is its own, wherever that was copied to.

    Args:
        folder: of the run.
        paths: of checkpoints that may be the run's.
    """
    whole: list[Path] = []
    weights: list[Path] = []
    others: dict[Path, str] = {}
    for path in paths:
        content = read_inside(path)
        if content and "optimizer_states" not in content:
            weights.append(path)
        elif not content or is_of_run(folder, path, _folder_said(content)):
            whole.append(path)
        else:
            others[path] = _folder_said(content)
    if others:
        _tell_of_others(folder, others)
    if weights and not whole:
        warn(
            f"{folder}: this run is not finished, but its checkpoints hold weights alone (save_weights_only), no "
            f"training to go on with: {', '.join(str(path) for path in sorted(weights))}. --resume.every_n_steps and "
            f"--resume.every_n_minutes save what the same command goes on from."
        )
    return whole


def _tell_of_others(folder: Path, others: dict[Path, str]) -> None:
    """One warning for all: a folder for many runs has many files.

    Args:
        folder: of the run.
        others: checkpoints that are not the run's, with the folder of the run that each says it is of.
    """
    path, theirs = max(others.items())
    if len(others) == 1:
        whose = f"of another run, {theirs}" if theirs else "outside of the run's folder and does not say whose it is"
        warn(f"{path} is {whose}: {folder} does not go on from it. --ckpt_path does, if it is meant.")
    else:
        warn(
            f"{len(others):,} checkpoints in {path.parent} are of other runs or do not say whose they are, such as "
            f"{path.name} of {theirs or 'a run not named'}: {folder} does not go on from them. --ckpt_path does, if "
            f"one is meant."
        )


def of_run(folder: Path, paths: Iterable[Path]) -> set[Path]:
    """Those of some checkpoints that hold a training, and that of the run in this folder.

    Args:
        folder: of the run.
        paths: of checkpoints that may be the run's.
    """
    inside = {path: read_inside(path) for path in paths}
    return {
        path
        for path, content in inside.items()
        if "optimizer_states" in content and is_of_run(folder, path, _folder_said(content))
    }


def folder_said(path: Path) -> str:
    """The folder of the run that a checkpoint says it is of; empty if it says none.

    Args:
        path: of the checkpoint.
    """
    return _folder_said(read_inside(path))


def steps_done(path: Path) -> float:
    """Optimizer steps at a checkpoint; infinity if it cannot be read.

    Args:
        path: of the checkpoint.
    """
    return float(read_inside(path).get("global_step", "inf"))


def is_of_run(folder: Path, path: Path, said: str) -> bool:
    """Whether a checkpoint is of the run in a folder: it says so, or lies there and in no other run's folder within.

    Args:
        folder: of the run.
        path: of the checkpoint.
        said: the folder of the run that it says it is of; empty if it says none.
    """
    own, theirs = Path(os.path.realpath(folder)), Path(said)
    if said == str(own):
        return True
    around = Path(os.path.realpath(path)).parents
    return own in around and not (theirs in around and own in theirs.parents)


def _folder_said(content: dict[str, Any]) -> str:
    return str(content.get("callbacks", {}).get("ExactResume", {}).get("folder", ""))


def checkpoints_beside(path: Path) -> list[Path]:
    """The other checkpoints of the run that a file is of, as far as its folder tells.

    Args:
        path: of the file.
    """
    folder = path.parent.parent if path.parent.name == FOLDER else path.parent
    return [p for p in (*folder.glob("*.ckpt"), *folder.glob(f"{FOLDER}/*.ckpt")) if p != path]


def _age(path: Path) -> tuple[bool, float, float]:
    content = read_inside(path)
    try:
        written = path.stat().st_mtime
    except OSError:  # removed by now
        written = 0.0
    if not content:
        return True, float("inf"), written
    return "optimizer_states" in content, float(content["global_step"]), written


def read_inside(path: Path) -> dict[str, Any]:
    """A checkpoint's dictionary, not verified, its tensors left in the file; empty if it is none.

    Args:
        path: of the checkpoint; of one in several files, the common one is read, in which tensors have no rows.
    """
    try:
        content = torch.load(
            path / META if is_sharded(path) else path, map_location="cpu", weights_only=True, mmap=True
        )
    except Exception:  # bytes that are no pickle raise anything; verify_file says what is wrong
        return {}
    known = isinstance(content, dict) and isinstance(content.get("global_step"), int)
    return content if known else {}

"""Where training runs lie, which of them are of a configuration, and where one can be taken up again.

A run is known by its configuration. The same command, typed again, finds the run that it started and did not finish.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_t6.training.checkpoint_choice import folder_said, newest_whole, to_go_on_from
from lit_t6.training.checkpoint_files import FOLDER as RESUME_FOLDER
from lit_t6.training.messages import warn
from lit_t6.training.places import expand, run_folder
from lit_t6.training.run_lock import is_held

CONFIG_NAME = "config.yaml"
FINISHED_NAME = "finished"
_TAKEN_OVER = "LIT_T6_TAKEN_OVER"
"""Tells the processes that DDP starts what their parent has found."""
_NOT_OF_THE_RUN = ("auto_resume", "ckpt_path", "weights_only", "convert", "resume", "on_save_error", "guards")


@dataclass
class Unfinished:
    """A run that can be taken up again.

    Args:
        folder: of the run.
        version: as the logger takes it: a number, or a name.
        ckpt_path: its last whole checkpoint.
    """

    folder: str
    version: int | str
    ckpt_path: str


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """What tells one run from another: its options, less those that only say how it is kept, taken up and fits."""
    plain = {key: value for key, value in config.items() if key not in _NOT_OF_THE_RUN}
    if isinstance(model := plain.get("model"), dict):
        plain["model"] = {key: value for key, value in model.items() if key != "recompute"}
    logger = (plain.get("trainer") or {}).get("logger")
    if isinstance(logger, dict) and "init_args" in logger:
        arguments = {key: value for key, value in logger["init_args"].items() if key != "version"}
        plain["trainer"] = {**plain["trainer"], "logger": {**logger, "init_args": arguments}}
    return plain


def find_unfinished(config: dict[str, Any]) -> Unfinished | None:
    """The newest run of this very configuration that nobody is at work on, is not finished, and can be gone on with.

    Args:
        config: all options of `fit`, in plain form.

    Returns:
        None where there is no such run, or where runs are not logged into folders.

    Raises:
        ValueError: all checkpoints of such a run are damaged.
    """
    told = os.environ.get(_TAKEN_OVER)
    if told is not None:
        plain = json.loads(told)
        return Unfinished(**plain) if plain else None
    for folder, version in runs_of(config, finished=False):
        saved = saved_checkpoints(folder, config)
        if saved and not is_held(folder) and (saved := to_go_on_from(folder, saved)):
            return Unfinished(str(folder), version, str(_choose(folder, saved)))
    return None


def saved_checkpoints(folder: Path, config: dict[str, Any]) -> list[Path]:
    """Checkpoints where a run of this configuration keeps its own; others may be among them."""
    dirpath = (config.get("checkpoint") or {}).get("dirpath")
    checkpoints = Path(expand(dirpath)) if dirpath else folder / "checkpoints"
    return [*checkpoints.glob("*.ckpt"), *folder.glob(f"checkpoints/{RESUME_FOLDER}/*.ckpt")]


def _choose(folder: Path, saved: list[Path]) -> Path:
    """The newest checkpoint that is whole; says which are not."""
    path, damaged = newest_whole(saved)
    if path is None:
        raise ValueError(
            f"{folder}: this run is not finished, but none of its checkpoints is whole: "
            + " ".join(str(error) for error in damaged)
            + " Put back a copy of one, or start afresh with --auto_resume false."
        )
    for error in damaged:
        warn(f"{error} Going on from an earlier one, {path}.")
    return path


def tell_child_processes(found: Unfinished | None) -> None:
    """Let the processes that this one starts for its other devices take up the same run; see `forget`."""
    os.environ[_TAKEN_OVER] = json.dumps(asdict(found) if found else None)


def forget() -> None:
    """The run is over: the next one in this process looks for itself."""
    os.environ.pop(_TAKEN_OVER, None)


def _folders(save_dir: str, name: str | None, version: int | str | None) -> Iterator[tuple[Path, int | str]]:
    """Folders of the runs of a name, newest first, with their versions."""
    if version is not None:
        yield run_folder(save_dir, name, version), version
        return
    root = run_folder(save_dir, name, 0).parent
    numbers = [int(n) for path in root.glob("version_*") if (n := path.name.removeprefix("version_")).isdigit()]
    for number in sorted(numbers, reverse=True):
        yield run_folder(save_dir, name, number), number


def runs_of(config: dict[str, Any], finished: bool) -> Iterator[tuple[Path, int | str]]:
    """Folders and versions of the runs of this very configuration, newest first; none if they are not in folders.

    Args:
        config: all options of `fit`, in plain form.
        finished: whether they are.
    """
    return ((folder, version) for folder, version in runs_beside(config, finished) if is_run_of(folder, config))


def runs_beside(config: dict[str, Any], finished: bool) -> Iterator[tuple[Path, int | str]]:
    """The same of any configuration that is logged under the same name.

    Args:
        config: as of `runs_of`.
        finished: likewise.
    """
    logger = config["trainer"].get("logger")
    if not isinstance(logger, dict) or not logger["class_path"].endswith("TensorBoardLogger"):
        return
    arguments = logger["init_args"]
    for folder, version in _folders(arguments["save_dir"], arguments.get("name"), arguments.get("version")):
        if (folder / FINISHED_NAME).exists() == finished:
            yield folder, version


def is_run_of(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a folder is that of a run of this very configuration.

    Args:
        folder: of a run.
        config: all options of `fit`, in plain form.
    """
    saved = config_of(folder)
    return saved is not None and comparable(saved) == comparable(config)


def config_of(folder: Path) -> dict[str, Any] | None:
    """The options that a run was started with; None where there are none to be read.

    Args:
        folder: of the run.
    """
    try:
        saved = yaml.safe_load((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return saved if isinstance(saved, dict) else None


def is_of_another(path: Path, config: dict[str, Any]) -> bool:
    """Whether a checkpoint says a run that is there and is of another configuration; the same may have been moved.

    Args:
        path: of the checkpoint.
        config: all options of `fit`, in plain form.
    """
    said = folder_said(path)
    return said != "" and (Path(said) / CONFIG_NAME).exists() and not is_run_of(Path(said), config)

"""The folder of a training run: who is at work in it, whether it is finished, and where it can be taken up again.

A run is known by its configuration. The same command, typed again, finds the run that it started and did not finish.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lit_t6.training.checkpoint import read_checkpoint
from lit_t6.training.checkpoint_choice import folder_said, newest_whole, to_go_on_from
from lit_t6.training.checkpoint_files import FOLDER as RESUME_FOLDER
from lit_t6.training.curves import trim_curves
from lit_t6.training.messages import say, warn
from lit_t6.training.places import expand, home_of, make_run_folder, run_folder
from lit_t6.training.run_lock import hold_folder, is_held
from lit_t6.whole_files import replace_bytes

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
    return ((folder, version) for folder, version in runs_beside(config, finished) if _is_run_of(folder, config))


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


def _is_run_of(folder: Path, config: dict[str, Any]) -> bool:
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


def _is_of_another(path: Path, config: dict[str, Any]) -> bool:
    """Whether a checkpoint says a run that is there and is of another configuration; the same may have been moved."""
    said = folder_said(path)
    return said != "" and (Path(said) / CONFIG_NAME).exists() and not _is_run_of(Path(said), config)


class RunFolder(SaveConfigCallback):
    """Saves the configuration into the run's folder, holds the folder while training, marks it when finished.

    A run that is taken up again has the points of its curves removed that lie after its checkpoint, since these steps
    are computed again.

    Args:
        parser: that parsed `config`.
        config: all options of `fit`.
        taken_up: the run that goes on, if one does.
        as_typed: the options before it was known what the run goes on with; these are saved.
        **options: of Lightning's SaveConfigCallback.

    Raises:
        ValueError: the folder holds another run, or another process is at work in it.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Any,
        taken_up: Unfinished | None = None,
        as_typed: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(parser, as_typed or config, save_to_log_dir=False, **options)
        self.taken_up = taken_up
        self._held: IO[str] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._check_agreement(trainer)
        folder = home_of(trainer)
        if trainer.is_global_zero and not self.already_saved:
            make_run_folder(folder)
            self._held = hold_folder(folder)
            self._check_that_it_may_be_used(trainer, folder)
            (folder / FINISHED_NAME).unlink(missing_ok=True)
            if self.taken_up is not None:
                self._take_up(trainer, folder, self.taken_up)
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Save the options, all or nothing: by them the run is found again, also when the disk is full now."""
        replace_bytes(home_of(trainer) / CONFIG_NAME, self.parser.dump(self.config, skip_none=False).encode())

    def _check_that_it_may_be_used(self, trainer: L.Trainer, folder: Path) -> None:
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        same = _is_run_of(folder, config)
        if self._held is None:
            run = "this run already" if same else "another run"
            raise ValueError(f"{folder}: another process trains {run} in this folder; wait for it, or stop it.")
        if self.overwrite or not (folder / CONFIG_NAME).exists():
            return
        held, named = "another run", ""
        if same and (folder / FINISHED_NAME).exists():
            held = "this run, finished"
        elif same:
            saved = {path for path in saved_checkpoints(folder, config) if not _is_of_another(path, config)}
            saved |= {*folder.glob("checkpoints/**/*.ckpt")}
            if not saved:
                self.overwrite = True  # this run, killed before its first checkpoint
                _trim(trainer, 0, 0)
                return
            where = ", ".join(sorted({str(path.parent) for path in saved}))
            held = "this run, not finished,"
            named = (
                f" None of the checkpoints in {where} was taken up: --auto_resume is false, or they are of another "
                f"run or weights alone. It would start at step 0, and its curves be lost."
            )
        raise ValueError(
            f"{folder}: holds {held} already.{named} Choose another name or version for the logger, go on from one of "
            f"its checkpoints with --ckpt_path, or remove the folder."
        )

    def _take_up(self, trainer: L.Trainer, folder: Path, run: Unfinished) -> None:
        content = read_checkpoint(run.ckpt_path).content
        step = content["global_step"]
        states = content.get("callbacks", {})
        tokens = states.get("Throughput", {}).get("tokens", 0)
        validated = not states.get("ExactResume", {}).get("validation_due", False)
        _trim(trainer, step, tokens, validated)
        say(
            f"Going on with {folder} after step {step:,}: the same command began it and did not finish. "
            f"--auto_resume false starts afresh."
        )

    def _check_agreement(self, trainer: L.Trainer) -> None:
        """All ranks must have found the same checkpoint; those that we did not start ourselves looked alone."""
        mine = self.taken_up.ckpt_path if self.taken_up else None
        first = trainer.strategy.broadcast(mine)
        if mine != first:
            raise ValueError(
                f"rank {trainer.global_rank} found {mine} to go on with, rank 0 found {first}: do all hosts see the "
                f"same files? Name one with --ckpt_path, or pass --auto_resume false."
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._held is not None and _has_reached_its_end(trainer):
            path = Path(self._held.name).with_name(FINISHED_NAME)
            try:
                path.write_text(f"{trainer.global_step} steps\n")
            except OSError as error:
                if not path.exists():  # the name says it; a file without content takes no space
                    warn(f"{path}: {error.strerror}; the same command would take this run up again.")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._release()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def _trim(trainer: L.Trainer, step: int, tokens: int, validated: bool = True) -> None:
    """Cut the curves in the run's folder back, those in `sub_dir` among them; see `trim_curves`."""
    for logger in trainer.loggers:
        if logger.log_dir is not None and Path(logger.log_dir).is_relative_to(home_of(trainer)):
            trim_curves(Path(logger.log_dir), step, tokens, validated)


def _has_reached_its_end(trainer: L.Trainer) -> bool:
    """Whether all steps or epochs are done, or more would not help; not where a time limit ended the training."""
    by_steps = 0 < trainer.max_steps <= trainer.global_step
    by_epochs = trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
    return by_steps or by_epochs or any(isinstance(c, EarlyStopping) and c.stopped_epoch > 0 for c in callbacks)

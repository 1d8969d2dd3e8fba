"""The folder of a training run: who is at work in it, what it was started with, and whether it is finished."""

from pathlib import Path
from typing import IO, Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lit_t6.training.checkpoint import read_checkpoint
from lit_t6.training.curves import trim_curves
from lit_t6.training.messages import say, warn
from lit_t6.training.places import home_of, make_run_folder
from lit_t6.training.run_lock import hold_folder
from lit_t6.training.runs import CONFIG_NAME, FINISHED_NAME, Unfinished, is_of_another, is_run_of, saved_checkpoints
from lit_t6.whole_files import replace_bytes


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
        same = is_run_of(folder, config)
        if self._held is None:
            run = "this run already" if same else "another run"
            raise ValueError(f"{folder}: another process trains {run} in this folder; wait for it, or stop it.")
        if self.overwrite or not (folder / CONFIG_NAME).exists():
            return
        held, named = "another run", ""
        if same and (folder / FINISHED_NAME).exists():
            held = "this run, finished"
        elif same:
            saved = {path for path in saved_checkpoints(folder, config) if not is_of_another(path, config)}
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

"""Options of the training commands and their defaults."""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from lit_t6.data import TokenDataModule
from lit_t6.model import Recompute, T6Config
from lit_t6.training.callbacks import (
    DocumentLossWriter,
    FactorDiagnostics,
    Guards,
    SafeModelCheckpoint,
    SampleWriter,
    SaveForResume,
)
from lit_t6.training.checkpoint_io import OnSaveError
from lit_t6.training.module import LitT6
from lit_t6.training.optimizer import OptimizerConfig


def build_model(
    optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
    compile: bool = False,
    recompute: Recompute = "none",
    **config: Any,
) -> LitT6:
    """A T6 model with its training recipe; the options are those of T6Config beside those of the training.

    Args:
        optimizer: AdamW and its learning-rate schedule.
        compile: compile the model with torch.compile, block by block; what is compiled is kept for the next run.
        recompute: activation checkpointing, for batches and sequences that do not fit: "selective" keeps of a block
            its input, that of the feed-forward and what attention computed, and makes the rest again on the way back;
            "full" keeps the input alone and takes a whole forward pass more. The numbers stay the same. Try
            "selective" first, and "none" wherever the batch fits: it is the fastest.
        **config: see `lit_t6.T6Config`.
    """
    return LitT6(T6Config(**config), optimizer, compile, recompute)


SETTINGS: dict[str, Any] = {
    "model_class": build_model,
    "datamodule_class": TokenDataModule,
    "seed_everything_default": 0,
    "trainer_defaults": {
        "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": "logs", "name": "t6", "default_hp_metric": False},
        },
        "gradient_clip_val": 1.0,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,
        "enable_model_summary": False,  # the panel before the first step, and TensorBoard's Text page, say it
    },
    "auto_configure_optimizers": False,
    "load_from_checkpoint_support": False,  # LitT6 keeps its own hyperparameters, in one form for CLI and Python
}


def add_options(parser: LightningArgumentParser) -> None:
    """Add the options beside those of trainer, model and data."""
    parser.add_argument(
        "--auto_resume",
        type=bool,
        default=True,
        help="fit: go on with the last unfinished run of the same configuration in the logger's folder, if there "
        "is one, from its last checkpoint that is whole.",
    )
    parser.add_argument(
        "--on_save_error",
        type=OnSaveError,
        default="warn",
        help="fit: when a checkpoint cannot be written, the disk being full for one: warn and go on training, or "
        "stop. The checkpoint before it is whole in either case. Curves that cannot be written wait, or stop.",
    )
    parser.add_argument(
        "--convert",
        type=bool,
        default=False,
        help="With --ckpt_path of another configuration: take the weights whose names and shapes are the same. fit "
        "then starts at step 0 with a new optimizer, the other weights drawn afresh; evaluations need them all.",
    )
    parser.add_lightning_class_args(SafeModelCheckpoint, "checkpoint")
    parser.set_defaults(
        {
            "checkpoint.monitor": "val/loss",
            "checkpoint.filename": "step={step}",
            "checkpoint.auto_insert_metric_name": False,
            "checkpoint.save_last": True,
        }
    )
    parser.add_lightning_class_args(SaveForResume, "resume")
    parser.add_lightning_class_args(SampleWriter, "samples")
    parser.add_lightning_class_args(FactorDiagnostics, "diagnostics")
    parser.add_lightning_class_args(Guards, "guards")
    parser.add_lightning_class_args(DocumentLossWriter, "predictions")

"""LightningCLI for LitT6: fit, validate, test and predict."""

import warnings
from typing import Any, Self

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from lit_t6.data import TokenDataModule
from lit_t6.model import T6Config
from lit_t6.training.callbacks import DocumentLossWriter
from lit_t6.training.module import LitT6
from lit_t6.training.optimizer import OptimizerConfig


def build_model(optimizer: OptimizerConfig = OptimizerConfig(), compile: bool = False, **config: Any) -> LitT6:  # noqa: B008
    """A T6 model with its training recipe; the options are those of T6Config beside `optimizer` and `compile`.

    Args:
        optimizer: AdamW and its learning-rate schedule.
        compile: compile the training step with torch.compile.
        **config: see `lit_t6.T6Config`.
    """
    return LitT6(T6Config(**config), optimizer, compile)


_SETTINGS: dict[str, Any] = {
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
    },
    "auto_configure_optimizers": False,
    "load_from_checkpoint_support": False,  # LitT6 keeps its own hyperparameters, in one form for CLI and Python
}


def _gpu_precision() -> str | None:
    """bfloat16 where a GPU has it; None leaves Lightning's default, float32."""
    has_bfloat16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has_bfloat16 else None


class T6CLI(LightningCLI):
    """Lightning's command line with our model, data and defaults."""

    @classmethod
    def run(cls, arguments: list[str]) -> Self:
        """Run one of fit, validate, test and predict.

        Args:
            arguments: the command and its options.

        Returns:
            The finished run, with its `trainer`, `model` and `datamodule`.
        """
        return cls(
            args=arguments, save_config_callback=SaveConfigCallback if arguments[0] == "fit" else None, **_SETTINGS
        )

    @classmethod
    def build(cls, options: list[str]) -> Self:
        """Build `trainer`, `model` and `datamodule` from options, and run nothing."""
        return cls(args=options, run=False, save_config_callback=None, **_SETTINGS)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checkpoints and predictions are options of every run."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/loss",
                "checkpoint.filename": "step={step}",
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.save_last": True,
            }
        )
        parser.add_lightning_class_args(DocumentLossWriter, "predictions")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args` alone: the words of the process are `cli.main`'s business."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leave the options as they are: a checkpoint's are below the user's, not above them (`cli.main`)."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with bfloat16 on GPUs that have it unless another precision was asked for."""
        trainer_config = self._get(self.config_init, "trainer")
        if trainer_config.get("precision") is None and trainer_config["accelerator"] in ("auto", "gpu", "cuda"):
            kwargs["precision"] = _gpu_precision()
        evaluates = self.subcommand in ("validate", "test", "predict")
        if evaluates:
            kwargs["logger"] = False  # its figures are printed; the curves are those of training
        trainer = super().instantiate_trainer(**kwargs)
        if evaluates:
            # Nothing to save; Lightning then warns that the checkpoint was written by a callback that is not there.
            callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
            callbacks[:] = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
            warnings.filterwarnings("ignore", message="Be aware that when using .ckpt_path.")
        return trainer

    def before_instantiate_classes(self) -> None:
        """Settings that follow from the command: precision of products, predictions, the saved configuration."""
        torch.set_float32_matmul_precision("high")
        if self.subcommand == "predict" and self.config.predict.return_predictions is None:
            self.config.predict.return_predictions = False  # they go to a file, not to memory
        if self.subcommand == "fit":
            self.save_config_kwargs = {"overwrite": self.config.fit.ckpt_path is not None}
            if self.config.fit.trainer.logger is False:
                self.save_config_callback = None  # there is no folder of the run

"""T6 as a LightningModule."""

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lit_t6.data import TokenDataModule
from lit_t6.model import IGNORED_TARGET, Recompute, T6Config, T6Model, check_recompute
from lit_t6.training.callbacks import (
    AttentionBackend,
    ExactResume,
    FactorDiagnostics,
    GradientExchange,
    Guards,
    LastingCurves,
    SampleWriter,
    StartPanel,
    TensorBoardPages,
    Throughput,
    ValidateAtEnd,
    is_logging_step,
)
from lit_t6.training.checkpoint_files import is_sharded, verify_file
from lit_t6.training.metrics import LanguageModelMetrics
from lit_t6.training.optimizer import OptimizerConfig
from lit_t6.training.tensorboard_logger import make_lasting

Batch = dict[str, Tensor]

_NOT_OF_THE_WEIGHTS = ("impl", "init", "init_variance", "max_seq_len", "rope_on")
"""Settings that may change between a checkpoint and its next use."""


def hyper_parameters(
    config: T6Config, optimizer: OptimizerConfig, compile: bool = False, recompute: Recompute = "none"
) -> dict[str, Any]:
    """What a checkpoint says of how its model was made, in primitives only: it must load with weights_only=True."""
    return {"config": config.to_dict(), "optimizer": asdict(optimizer), "compile": compile, "recompute": recompute}


class LitT6(L.LightningModule):
    """Trains and evaluates a T6 model.

    Args:
        config: of the model; also in the plain form that `T6Config.to_dict` gives, as checkpoints hold it.
        optimizer: of the training; also as a plain dictionary.
        compile: compile the model with torch.compile, its blocks once for all of them.
        recompute: what of each block the backward pass computes again, for less memory; see `lit_t6.model.Recompute`.

    Raises:
        ValueError: settings that contradict each other; see `T6Config` and `OptimizerConfig`.
    """

    def __init__(
        self,
        config: T6Config | dict[str, Any],
        optimizer: OptimizerConfig | dict[str, Any] | None = None,
        compile: bool = False,
        recompute: Recompute = "none",
    ) -> None:
        super().__init__()
        check_recompute(recompute)
        config = T6Config.from_dict(config) if isinstance(config, dict) else config
        self.model = T6Model(config)
        if optimizer is None or isinstance(optimizer, dict):
            optimizer = OptimizerConfig(**(optimizer or {}))
        self.optimizer_config = optimizer
        self.save_hyperparameters(hyper_parameters(self.config, optimizer, compile, recompute), logger=False)
        self._loss = partial(self.model.loss, compiled=compile, recompute=recompute)
        self.val_metrics = LanguageModelMetrics()
        self.test_metrics = LanguageModelMetrics()
        self._step_losses: list[Tensor] = []
        self._losses_at_hand = torch.empty(0)  # of the step that is about to be taken
        self._guards: Guards | None = None
        self.step_figures: dict[str, Tensor] = {}
        """Figures of the step at hand, if it is logged, each one number by its tag."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """As Lightning's, of a file that is verified first.

        Raises:
            DamagedCheckpoint: it is truncated or changed.
            ValueError: it is a folder of shards.
        """
        if isinstance(checkpoint_path, str | Path):
            if is_sharded(checkpoint_path):
                raise ValueError(
                    f"{checkpoint_path}: is in shards: python cli.py convert --from shards makes a file of it."
                )
            if Path(checkpoint_path).is_file():
                verify_file(checkpoint_path)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    @property
    def config(self) -> T6Config:
        """The model's settings, with the head count known."""
        return self.model.config

    @staticmethod
    def check_trainer(trainer: L.Trainer, fits: bool = True) -> None:
        """Refuse what cannot come out right.

        Args:
            trainer: of this model.
            fits: it trains, and does not only evaluate.

        Raises:
            ValueError: an Apple GPU, which has no float64; several devices whose clocks would say when to validate; or
                a strategy that would take steps which are not those of one device.
        """
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise ValueError(
                f"trainer.strategy: {type(trainer.strategy).__name__} of Lightning is not supported; use "
                f"--trainer.strategy fsdp, or from Python strategy=lit_t6.training.ShardedStrategy()."
            )
        if trainer.strategy.root_device.type == "mps":
            raise ValueError(
                "accelerator mps: Apple's GPUs have no float64, which rotary tables and exact sums of losses need; "
                "use --trainer.accelerator cpu."
            )
        seconds = getattr(trainer, "_val_check_time_interval", None)
        if fits and seconds is not None and trainer.world_size > 1:
            raise ValueError(
                f"trainer.val_check_interval: a time ({seconds:g} s) with {trainer.world_size} devices, whose clocks "
                f"would disagree about the step: some would validate while others train and wait for them. Give a "
                f"number of steps."
            )

    def setup(self, stage: str) -> None:
        """Check that trainer and data fit the model; see `check_trainer`.

        Raises:
            ValueError: data of a larger vocabulary, or a trainer that cannot do it.
        """
        self.check_trainer(self.trainer, stage == "fit")
        if self.hparams["compile"] and self.trainer.world_size > 1:
            torch._dynamo.config.optimize_ddp = False  # it cuts graphs for DDP to begin early: blocks are cuts enough
        datamodule = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, TokenDataModule):
            datamodule.fit_to_model(self.config.vocab_size, self.config.max_seq_len)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token, (B, T) → (B, T, V)."""
        return self.model(tokens)

    def on_train_start(self) -> None:
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
        self._guards = next((c for c in callbacks if isinstance(c, Guards)), None)
        self._step_losses = []  # of a step that a training before did not end

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._loss(batch["tokens"], batch["targets"], document_ids=batch.get("document_ids"))
        self._step_losses.append(loss.detach())
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the mean loss of the micro-batches that make up this step for the logs."""
        self._losses_at_hand, self._step_losses = torch.stack(self._step_losses), []
        self.step_figures = {}
        if self._logs_this_step():
            mean = self.trainer.strategy.reduce(self._losses_at_hand.mean(), reduce_op="mean")
            assert isinstance(mean, Tensor)
            self.step_figures["train/loss"] = mean
            self.log("train/loss", mean, logger=False)  # for callbacks that monitor it; Throughput writes it

    def _logs_this_step(self) -> bool:
        return is_logging_step(self.trainer, self.trainer.global_step + 1)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says, and leave the norm that the gradient had before for the logs and the guards."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm: Tensor | None = None
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            norm = torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)  # one pass for both
        else:
            if self._guards is not None or self._logs_this_step():
                norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if isinstance(norm, DTensor):  # of shards: still to be added up over the ranks
            norm = norm.full_tensor()
        if norm is not None and self._logs_this_step():
            self.step_figures["optim/grad_norm"] = norm
        if norm is not None and self._guards is not None:
            self._guards.inspect(optimizer, self._losses_at_hand, norm)

    def _evaluate(self, batch: Batch, metrics: LanguageModelMetrics) -> None:
        nats = self._nats(batch)
        metrics.update(nats, batch["targets"] != IGNORED_TARGET, batch["target_bytes"])

    def _nats(self, batch: Batch) -> Tensor:
        return self.model.loss(
            batch["tokens"], batch["targets"], document_ids=batch.get("document_ids"), reduction="none"
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Per target: `nats`, its `documents` index, whether it is `counted` and its `target_bytes`, each (B, T)."""
        return {
            "nats": self._nats(batch),
            "documents": batch["documents"],
            "counted": batch["targets"] != IGNORED_TARGET,
            "target_bytes": batch["target_bytes"],
        }

    def _log_metrics(self, prefix: str, metrics: LanguageModelMetrics) -> None:
        # The metric has summed over the ranks, so all log the same; sync_dist says so to Lightning, which would ask.
        values = {f"{prefix}/{name}": value.float() for name, value in metrics.compute().items()}
        metrics.reset()
        self.log_dict(values, prog_bar=prefix == "val", sync_dist=self.trainer.world_size > 1)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test", self.test_metrics)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # The fused kernel unscales float16 gradients itself, after they were clipped: not then.
        optimizer = self.optimizer_config.build(self.parameters(), fused=self.trainer.precision != "16-mixed")
        last_step = self.optimizer_config.decay_steps or self.trainer.estimated_stepping_batches
        if math.isinf(last_step):
            raise ValueError(
                "the learning-rate schedule does not know where to end: set trainer.max_steps, trainer.max_epochs or "
                "model.optimizer.decay_steps."
            )
        schedule = self.optimizer_config.schedule(optimizer, int(last_step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        """What a training run wants, unless the trainer was given another callback of the class."""
        present: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
        throughput = next((c for c in present if isinstance(c, Throughput)), None) or Throughput(self.config)
        wanted = [
            StartPanel(self.config),
            AttentionBackend(self.config),
            GradientExchange(),
            Guards(),
            throughput,
            TensorBoardPages(self.config, self.optimizer_config, throughput),
            FactorDiagnostics(),
            SampleWriter(),
            ValidateAtEnd(),
            ExactResume(),
            LastingCurves(),  # after all that write
        ]
        make_lasting(self.trainer)
        given = {type(callback) for callback in present}
        return [callback for callback in wanted if type(callback) not in given]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another model, naming the differences, and weights alone to go on training from."""
        theirs = T6Config.from_dict(checkpoint["hyper_parameters"]["config"]).to_dict()
        if differences := _differences(theirs, self.config.to_dict()):
            raise ValueError(
                "the checkpoint holds another model than the one configured: "
                + "; ".join(f"{key} is {old} there, {new} here" for key, old, new in differences)
                + ". Leave out what is typed of the model: the checkpoint's own configuration is taken then."
            )
        if self._trainer is not None:
            # Lightning does so after the weights are in; float64 ones would have been rounded to float32 by then.
            self._trainer.precision_plugin.convert_module(self)
        fitting = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        if fitting and "optimizer_states" not in checkpoint:
            raise ValueError(
                "the checkpoint holds weights and no state of a training to go on with: add --convert true, which "
                "takes the weights and starts at step 0."
            )


def _differences(theirs: Any, ours: Any, key: str = "model") -> list[tuple[str, Any, Any]]:
    """(dotted key, value of `theirs`, value of `ours`) wherever two nested dictionaries differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if theirs.get("class_path") != ours.get("class_path"):  # settings of two mechanisms cannot be compared
            theirs, ours = ({"class_path": plain["class_path"]} for plain in (theirs, ours))
        keys = [name for name in {**theirs, **ours} if name not in _NOT_OF_THE_WEIGHTS]
        return [d for name in keys for d in _differences(theirs.get(name), ours.get(name), f"{key}.{name}")]
    return [] if theirs == ours else [(key, theirs, ours)]

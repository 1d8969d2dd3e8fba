"""A piece of text that the model writes at every validation."""

import time

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lit_t6.data import TokenDataModule
from lit_t6.model import SamplingConfig, T6Model
from lit_t6.training.callbacks.text_page import add_text, as_code
from lit_t6.training.callbacks.throughput import logged_step
from lit_t6.training.sharded import whole_model
from lit_t6.training.streaming import stream_text


class SampleWriter(Callback):
    """Lets the model continue a prompt at every validation and shows the text in TensorBoard, `samples/continuation`.

    The same seed each time, and none of the random numbers of training. Writing takes little of the run: the text is
    shorter where that many tokens would take more than a share of the time since the last validation.

    Args:
        prompt: the text to go on from; empty starts a new document.
        max_new_tokens: tokens to add at most; 0 writes nothing.
        temperature: divides the logits; 0 takes the likeliest token each time.
        seed: of the drawing.
        max_share: of the time since the last validation that writing may take; one token is written in any case.

    Raises:
        ValueError: a negative number of tokens, or a share outside (0, 1].
    """

    def __init__(
        self,
        prompt: str = "",
        max_new_tokens: int = 64,
        temperature: float = 0.8,
        seed: int = 0,
        max_share: float = 0.003,
    ) -> None:
        if max_new_tokens < 0:
            raise ValueError(f"samples: max_new_tokens must be at least 0, got {max_new_tokens}.")
        if not 0 < max_share <= 1:
            raise ValueError(f"samples: max_share must be in (0, 1], got {max_share}.")
        self.prompt, self.max_new_tokens, self.seed, self.max_share = prompt, max_new_tokens, seed, max_share
        self.sampling = SamplingConfig(temperature)
        self._since = 0.0  # when training began, or the last sample was done

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data, model = getattr(trainer, "datamodule", None), getattr(pl_module, "model", None)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.sanity_checking or not self.max_new_tokens or not loggers:
            return
        if trainer.state.fn != "fit" or not isinstance(data, TokenDataModule) or not isinstance(model, T6Model):
            return
        whole = whole_model(model, trainer.is_global_zero)
        if whole is not None:
            self._write(trainer, data, whole, loggers)

    def _write(
        self, trainer: L.Trainer, data: TokenDataModule, model: T6Model, loggers: list[TensorBoardLogger]
    ) -> None:
        began = time.perf_counter()
        last = began + self.max_share * (began - self._since)
        text = self.prompt
        with trainer.precision_plugin.forward_context(), torch.no_grad():
            for piece in stream_text(model, data.tokenizer, self.prompt, self.max_new_tokens, self.sampling, self.seed):
                text += piece
                if time.perf_counter() > last:
                    text += " …"
                    break
        for logger in loggers:
            add_text(logger.experiment, "samples/continuation", as_code(text), logged_step(trainer))
        self._since = time.perf_counter()

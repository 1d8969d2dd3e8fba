"""A validation after the last step."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lit_t6.training.callbacks.throughput import ends_training


class ValidateAtEnd(Callback):
    """Validates after the last training step, whatever the validation interval.

    Lightning validates at multiples of the interval only, so the last weights would go without a figure.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if ends_training(trainer, trainer.global_step):
            trainer.should_stop = True  # asks for a validation; training ends here in any case

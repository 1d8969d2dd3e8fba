"""Losses by document, as `predict` writes them."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


class DocumentLossWriter(Callback):
    """Writes the loss of every document as a line of JSON: index, tokens, bytes, nats a token, bits a byte.

    Args:
        path: the JSONL file; it appears when all documents are done.
    """

    def __init__(self, path: str = "predictions.jsonl") -> None:
        self.path = Path(path)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sums = torch.zeros(0, 3, dtype=torch.float64)  # by document: nats, tokens, bytes

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        counted = outputs["counted"].cpu()
        documents = outputs["documents"].cpu()[counted]
        if not len(documents):
            return
        missing = int(documents.max()) + 1 - len(self._sums)
        if missing > 0:
            self._sums = torch.cat((self._sums, torch.zeros(missing, 3, dtype=torch.float64)))
        nats, num_bytes = (outputs[name].cpu()[counted].double() for name in ("nats", "target_bytes"))
        self._sums.index_add_(0, documents, torch.stack((nats, torch.ones_like(nats), num_bytes), dim=1))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        sums = self._sum_over_ranks(trainer, pl_module.device)
        if not trainer.is_global_zero:
            return
        partial = self.path.with_name(self.path.name + ".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            for document, (nats, tokens, num_bytes) in enumerate(sums.tolist()):
                if tokens:
                    line = {
                        "document": document,
                        "tokens": int(tokens),
                        "bytes": int(num_bytes),
                        "loss": nats / tokens,
                        "bits_per_byte": nats / (math.log(2) * num_bytes) if num_bytes else None,
                    }
                    file.write(json.dumps(line) + "\n")
        partial.replace(self.path)
        print(f"Losses of {int((sums[:, 1] > 0).sum())} documents are in {self.path}.")

    def _sum_over_ranks(self, trainer: L.Trainer, device: torch.device) -> torch.Tensor:
        length = int(trainer.strategy.reduce(torch.tensor(len(self._sums), device=device), reduce_op="max"))
        padded = torch.zeros(length, 3, dtype=torch.float64, device=device)
        padded[: len(self._sums)] = self._sums
        return trainer.strategy.reduce(padded, reduce_op="sum").cpu()

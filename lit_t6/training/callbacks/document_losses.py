"""Losses by document, as `predict` writes them."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from lit_t6.data.dataset import EvaluationDataset
from lit_t6.training.places import check_output


class DocumentLossWriter(Callback):
    """Writes the loss of every document as a line of JSON: index, tokens, bytes, nats a token, bits a byte, complete.

    The last is false of a document that ends after what was predicted, by `data.eval_windows` or a limit of the
    trainer; null where that is not known, since the data is not of `TokenDataModule`.

    Args:
        path: the JSONL file; it appears when all documents are done.
        overwrite: replace the file if it is there.

    Raises:
        ValueError: before anything is computed, if it is there and may not be replaced.
    """

    def __init__(self, path: str = "predictions.jsonl", overwrite: bool = False) -> None:
        self.path = Path(path)
        self.overwrite = overwrite

    def check_path(self) -> None:
        """Refuse a file that is there, unless it may be replaced.

        Raises:
            ValueError: it is there.
        """
        check_output(self.path, "--predictions.path", "losses.jsonl", self.overwrite, "--predictions.overwrite true")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "predict":
            self.check_path()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sums = torch.zeros(0, 3, dtype=torch.float64)  # by document: nats, tokens, bytes
        dataset = getattr(trainer.predict_dataloaders, "dataset", None)
        self._expected = dataset.targets_of_documents().tolist() if isinstance(dataset, EvaluationDataset) else None

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
        lines = [
            {
                "document": document,
                "tokens": int(tokens),
                "bytes": int(num_bytes),
                "loss": nats / tokens,
                "bits_per_byte": nats / (math.log(2) * num_bytes) if num_bytes else None,
                "complete": tokens == self._expected[document] if self._expected else None,
            }
            for document, (nats, tokens, num_bytes) in enumerate(sums.tolist())
            if tokens
        ]
        partial = self.path.with_name(self.path.name + ".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        partial.replace(self.path)
        print(self._said(len(lines), sum(line["complete"] is False for line in lines)))

    def _said(self, num: int, cut: int) -> str:
        total = sum(expected > 0 for expected in self._expected) if self._expected else num
        of_all = f" of {total:,}" if num < total else ""
        is_cut = f'; {cut:,} of them {"is" if cut == 1 else "are"} cut and marked "complete": false' if cut else ""
        return f"Losses of {num:,}{of_all} document{'' if total == 1 else 's'} are in {self.path}{is_cut}."

    def _sum_over_ranks(self, trainer: L.Trainer, device: torch.device) -> torch.Tensor:
        length = int(trainer.strategy.reduce(torch.tensor(len(self._sums), device=device), reduce_op="max"))
        padded = torch.zeros(length, 3, dtype=torch.float64, device=device)
        padded[: len(self._sums)] = self._sums
        return trainer.strategy.reduce(padded, reduce_op="sum").cpu()

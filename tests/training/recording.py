"""What a training in processes of its own is trained on, written down by each of them."""

import hashlib
import json
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class Recorder(Callback):
    """Writes the hash of each sequence that this rank is trained on; a callback for the command line.

    Args:
        folder: of the files, one a rank; it is made.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        rows = zip(batch["tokens"].tolist(), batch["targets"].tolist(), strict=True)
        hashes = [hashlib.sha256(json.dumps(row).encode()).hexdigest()[:16] for row in rows]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.global_step, hashes]) + "\n")


def sequences_by_step(folder):
    """The sequences of each optimizer step, in the order of the global sample index: batch by batch, rank by rank."""
    ranks = [
        [json.loads(line) for line in path.read_text().splitlines()] for path in sorted(Path(folder).glob("*.jsonl"))
    ]
    steps = {}
    for batches in zip(*ranks, strict=True):
        (step,) = {step for step, _ in batches}
        steps.setdefault(step, []).extend(name for _, names in batches for name in names)
    return steps

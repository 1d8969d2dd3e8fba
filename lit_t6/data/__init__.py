"""Text → tokenizer → shards → batches."""

from typing import TYPE_CHECKING

from lit_t6.data.manifest import Manifest, read_manifest
from lit_t6.data.prepare import prepare_corpus
from lit_t6.data.tokenizer import load_tokenizer, parse_tokenizer, token_num_bytes, train_tokenizer
from lit_t6.lazy_names import lazy_names

if TYPE_CHECKING:
    from lit_t6.data.dataset import EvaluationDataset, TokenWindows, TrainingDataset
    from lit_t6.data.module import TokenDataModule
    from lit_t6.data.order import window_of_sample

__all__ = [
    "EvaluationDataset",
    "Manifest",
    "TokenDataModule",
    "TokenWindows",
    "TrainingDataset",
    "load_tokenizer",
    "parse_tokenizer",
    "prepare_corpus",
    "read_manifest",
    "token_num_bytes",
    "train_tokenizer",
    "window_of_sample",
]

_HOMES = {
    "EvaluationDataset": "lit_t6.data.dataset",
    "TokenDataModule": "lit_t6.data.module",
    "TokenWindows": "lit_t6.data.dataset",
    "TrainingDataset": "lit_t6.data.dataset",
    "window_of_sample": "lit_t6.data.order",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)  # `prepare` waits for neither PyTorch nor Lightning

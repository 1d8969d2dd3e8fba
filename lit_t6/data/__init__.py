"""Text → tokenizer → shards → batches."""

from lit_t6.data.dataset import EvaluationDataset, TokenWindows, TrainingDataset
from lit_t6.data.manifest import Manifest, read_manifest
from lit_t6.data.module import TokenDataModule
from lit_t6.data.order import window_of_sample
from lit_t6.data.prepare import prepare_corpus
from lit_t6.data.tokenizer import load_tokenizer, parse_tokenizer, token_num_bytes, train_tokenizer

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

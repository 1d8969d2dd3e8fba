"""Prepared data as a LightningDataModule."""

import os
import sys
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_t6.data.accumulation import batches_of_step, set_accumulation
from lit_t6.data.dataset import EvaluationDataset, TokenWindows, TrainingDataset
from lit_t6.data.manifest import TOKENIZER_NAME, Manifest, file_hash, read_manifest
from lit_t6.data.order import GlobalOrderSampler, InOrderSampler, window_of_sample
from lit_t6.data.position import Position, ResumableLoader
from lit_t6.data.tokenizer import load_tokenizer, parse_tokenizer, token_num_bytes
from lit_t6.data.verify import verify_shards
from lit_t6.data.workers import leave_signals_to_the_parent

Split = Literal["train", "validation", "test"]


class TokenDataModule(L.LightningDataModule):
    """Windows of tokens from a folder that `python cli.py prepare` made.

    The order of training is a pure function of `seed` and the global sample index, whatever the numbers of ranks and
    loader workers; a resumed run goes on with the sample after the last.

    Args:
        path: folder with manifest.json, tokenizer.json and shards.
        batch_size: sequences a device and forward pass.
        global_batch_size: sequences an optimizer step, over all devices; sets the trainer's gradient accumulation, and
            a whole number in trainer.val_check_interval then counts optimizer steps, not batches. Null: batch_size
            times the number of devices, times trainer.accumulate_grad_batches.
        seq_len: T, tokens of a sequence; null takes the model's max_seq_len. It may be longer than that: rotary tables
            extend themselves.
        eval_batch_size: sequences a device in validation, test and prediction; null takes batch_size.
        eval_windows: validate, test and predict on this many sequences from the start of the split; null for all. The
            command `predict` does not take a checkpoint's over.
        seed: of the order of training.
        num_workers: loader processes a device; 0 reads in the main process.
        mask_documents: keep attention within documents.
        predict_split: what `predict` runs over.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "data/shakespeare",
        batch_size: int = 16,
        global_batch_size: int | None = None,
        seq_len: int | None = None,
        eval_batch_size: int | None = None,
        eval_windows: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        mask_documents: bool = False,
        predict_split: Split = "validation",
    ) -> None:
        super().__init__()
        path = os.fspath(path)  # hyperparameters are primitives, or a checkpoint could not be read again
        self.save_hyperparameters(logger=False)
        for name in ("batch_size", "global_batch_size", "seq_len", "eval_batch_size", "eval_windows"):
            value = self.hparams[name]
            if value is not None and value < 1:
                raise ValueError(f"data.{name} must be at least 1, got {value}.")
        self.path, self.seed, self.num_workers = Path(path), seed, num_workers
        self.batch_size, self.global_batch_size, self.seq_len = batch_size, global_batch_size, seq_len
        self.eval_batch_size, self.eval_windows = eval_batch_size or batch_size, eval_windows
        self.mask_documents, self.predict_split = mask_documents, predict_split
        self._position = Position()
        self._manifest: Manifest | None = None
        self._verified = False

    @property
    def samples_seen(self) -> int:
        """Training samples consumed so far, over all ranks."""
        return self._position.samples_seen

    @property
    def manifest(self) -> Manifest:
        """Description of the prepared data.

        Raises:
            ValueError: there is none at `path`.
        """
        if self._manifest is None:
            self._manifest = read_manifest(self.path)
        return self._manifest

    def prepare_data(self) -> None:
        """Check that the shards are what was written, once on each machine; see `verify_shards`.

        Raises:
            ValueError: no prepared data, or a damaged shard.
        """
        if not self._verified:  # Lightning asks once more what the command line has asked before
            verify_shards(self.path, self.manifest)
            self._verified = True

    def setup(self, stage: str) -> None:
        """Open the manifest and check that it is of the tokenizer beside it; set gradient accumulation.

        A training that starts afresh starts with the first sample, also with a data module that has served another.

        Raises:
            ValueError: no prepared data, another tokenizer, or a global batch that the devices do not divide.
        """
        expected = self.manifest.tokenizer_sha256
        self.tokenizer = load_tokenizer(self.path / TOKENIZER_NAME)
        if file_hash(self.path / TOKENIZER_NAME) != expected:
            raise ValueError(
                f"{self.path / TOKENIZER_NAME}: not the tokenizer that made the shards beside it (its hash is not "
                f"the manifest's). Run `python cli.py prepare` again."
            )
        if stage == "fit" and self.trainer is not None:
            if self.trainer.overfit_batches:  # type: ignore[attr-defined]  # set outside of Trainer's own class
                raise ValueError(
                    "trainer.overfit_batches replaces the order of the data, which is not supported; prepare a small "
                    "text instead, and train on it for many epochs."
                )
            self._position.start(afresh=self.trainer.global_step == 0)
            if self.global_batch_size is not None:
                set_accumulation(self.trainer, self.accumulation(self.trainer))

    def accumulation(self, trainer: L.Trainer) -> int:
        """Batches that an optimizer step takes from each device; see `batches_of_step`.

        Args:
            trainer: of the training.

        Raises:
            ValueError: a global batch that the devices do not divide, or that contradicts the trainer.
        """
        return batches_of_step(trainer, self.batch_size, self.global_batch_size)

    def fit_to_model(self, vocab_size: int, max_seq_len: int) -> None:
        """Take over the model's sequence length unless one was given, and check that the vocabularies fit.

        Raises:
            ValueError: a tokenizer with more tokens than the model has rows.
        """
        if self.manifest.vocab_size > vocab_size:
            raise ValueError(
                f"model.vocab_size={vocab_size}, but the tokenizer of {self.path} has {self.manifest.vocab_size} "
                f"tokens; set --model.vocab_size {self.manifest.vocab_size} or more, or, for a model that is trained, "
                f"take data of its own tokenizer (prepare --tokenizer)."
            )
        self.seq_len = self.hparams["seq_len"] or max_seq_len

    def _attached_trainer(self) -> L.Trainer:
        if self.trainer is None:
            raise ValueError("TokenDataModule: no trainer is attached; pass it to Trainer.fit, validate or predict.")
        return self.trainer

    @property
    def sequences_per_step(self) -> int:
        """Sequences that an optimizer step takes, over all devices, once a trainer is set up."""
        trainer = self._attached_trainer()
        return self.batch_size * trainer.accumulate_grad_batches * trainer.world_size

    def windows(self, split: Split, *, cover: bool) -> TokenWindows:
        """The windows of a split; see `TokenWindows`.

        Raises:
            ValueError: the split was not prepared, holds less than one window, or seq_len is not known.
        """
        if split not in self.manifest.splits:
            raise ValueError(
                f"{self.path}: no {split} split, only {', '.join(self.manifest.splits)}. Run `python cli.py prepare` "
                f"with --{split}_fraction above 0."
            )
        if self.seq_len is None:
            raise ValueError("TokenDataModule: seq_len is not known; give it, or attach a model with max_seq_len.")
        info = self.manifest.splits[split]
        windows = TokenWindows(self.path, info, self.seq_len, cover=cover, vocab_size=self.manifest.vocab_size)
        if len(windows) == 0:
            raise ValueError(
                f"{self.path}: the {split} split has {info.tokens:,} tokens, less than one window of "
                f"{self.seq_len} + 1. Give more text or a smaller --data.seq_len."
            )
        return windows

    def _loader(self, dataset: Dataset[dict[str, Tensor]], sampler: Any) -> DataLoader[dict[str, Tensor]]:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork
        return ResumableLoader(
            dataset,
            batch_size=None,  # the sampler yields whole batches
            sampler=sampler,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            # Starting a loader draws a number: from a generator of its own, or a resumed run, which starts another
            # number of them, would draw other random numbers in the model.
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=leave_signals_to_the_parent,
            # In other processes than forked ones, threads of libraries take signals before they can be blocked.
            multiprocessing_context="fork" if self.num_workers and sys.platform == "linux" else None,
        )

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of `TrainingDataset` for this rank."""
        trainer = self._attached_trainer()
        windows = self.windows("train", cover=False)
        dataset = TrainingDataset(windows, self.seed, self.manifest.end_of_text if self.mask_documents else None)
        self._sampler = GlobalOrderSampler(
            dataset,
            self.batch_size,
            trainer.global_rank,
            trainer.world_size,
            lambda: self.samples_seen,
            trainer.accumulate_grad_batches,
        )
        return self._loader(dataset, self._sampler)

    def evaluation_dataset(self, split: Split, *, name_documents: bool = False) -> EvaluationDataset:
        """Every token of a split, once; see `EvaluationDataset`."""
        return EvaluationDataset(
            self.windows(split, cover=True),
            token_num_bytes(self.tokenizer),
            self.manifest.end_of_text,
            mask_documents=self.mask_documents,
            name_documents=name_documents,
        )

    def _evaluation_loader(self, split: Split, *, name_documents: bool = False) -> DataLoader[dict[str, Tensor]]:
        trainer = self._attached_trainer()
        dataset = self.evaluation_dataset(split, name_documents=name_documents)
        if self.eval_windows is not None and self.eval_windows < len(dataset) and trainer.state.fn != "fit":
            rank_zero_info(
                f"data.eval_windows={self.eval_windows}: the first {self.eval_windows:,} of {len(dataset):,} sequences "
                f"of the {split} split; --data.eval_windows null takes all."
            )
        return self._loader(
            dataset,
            InOrderSampler(dataset, self.eval_batch_size, trainer.global_rank, trainer.world_size, self.eval_windows),
        )

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of `EvaluationDataset` over the validation split."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of `EvaluationDataset` over the test split."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of `EvaluationDataset` over `predict_split`."""
        return self._evaluation_loader(self.predict_split, name_documents=True)

    def on_before_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Count the samples of every training batch as it is used, not as it is fetched ahead."""
        trainer = self._attached_trainer()
        if trainer.training:
            self._position.use(self._sampler.samples_per_batch, trainer.global_step)
        return batch

    def samples_of_step(self) -> list[list[list[int]]]:
        """The samples of the optimizer step at hand: of each rank, of each batch, its first and last global index."""
        return self._position.samples_of_step(self.batch_size, self._attached_trainer().world_size)

    def windows_of_samples(self, samples: list[int]) -> list[int]:
        """The windows of the training split that some global sample indices stand for."""
        return window_of_sample(np.asarray(samples, dtype=np.int64), self._sampler.num_windows, self.seed).tolist()

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands in the data, and the tokenizer, so that a checkpoint can generate text by itself.

        Samples of a step that is not complete are not counted: their gradients are not saved.
        """
        step = self.trainer.global_step if self.trainer is not None else None
        return {"samples_seen": self._position.after_whole_steps(step), "tokenizer": self.tokenizer.to_str()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the last sample of the checkpoint.

        Raises:
            ValueError: the checkpoint's tokenizer is not that of the data.
        """
        if parse_tokenizer(state_dict["tokenizer"]).to_str() != self.tokenizer.to_str():
            raise ValueError(
                f"the checkpoint was trained with another tokenizer than that of {self.path}; losses would mean "
                f"nothing. Set --data.path to data prepared with the checkpoint's tokenizer."
            )
        self._position.samples_seen = state_dict["samples_seen"]

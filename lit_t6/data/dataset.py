"""Windows of T + 1 tokens, cut from memory-mapped shards.

Letters: B batch, T tokens of a window that predict one more each.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_t6.data.manifest import SplitInfo
from lit_t6.data.order import window_of_sample
from lit_t6.data.shards import open_shard

IGNORED_TARGET = -100
"""PyTorch's mark of a target that no loss counts."""


class TokenWindows:
    """The windows of a split. Window w holds T + 1 consecutive tokens, the last of them the first of the next window.

    Windows do not cross shards.

    Args:
        folder: of prepared data.
        split: its description in the manifest.
        seq_len: T.
        cover: also count the shorter last window of each shard, so that every token but a shard's first is predicted.
        vocab_size: of the tokenizer; every id must be below it.

    Raises:
        ValueError: a shard that is missing or damaged, or whose type does not hold the vocabulary.
    """

    def __init__(self, folder: Path, split: SplitInfo, seq_len: int, *, cover: bool, vocab_size: int) -> None:
        self.seq_len, self.vocab_size = seq_len, vocab_size
        self._files = [(folder / shard.file, shard.tokens) for shard in split.shards]
        self._shards = [open_shard(path, tokens) for path, tokens in self._files]
        for (path, _), ids in zip(self._files, self._shards, strict=True):
            if vocab_size - 1 > np.iinfo(ids.dtype).max:
                raise ValueError(
                    f"{path}: holds ids of type {ids.dtype}, which ends at {np.iinfo(ids.dtype).max:,}, but the "
                    f"vocabulary has {vocab_size:,} tokens: the shard is of another tokenizer. Run `python cli.py "
                    f"prepare` again."
                )
        predicted = np.array([max(0, len(shard) - 1) for shard in self._shards], dtype=np.int64)
        counts = -(-predicted // seq_len) if cover else predicted // seq_len
        self._first = np.concatenate(([0], np.cumsum(counts)))  # of every shard; the last entry is the total

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getstate__(self) -> dict[str, Any]:
        """Another process maps the files itself; it is not sent their contents."""
        return {**self.__dict__, "_shards": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shards = [open_shard(path, tokens) for path, tokens in self._files]

    def place(self, window: int) -> tuple[int, int]:
        """Shard, and offset in it, of a window's first token."""
        shard = int(np.searchsorted(self._first, window, side="right")) - 1
        return shard, (window - int(self._first[shard])) * self.seq_len

    def read(self, windows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Tokens of some windows, (B, T + 1) int64; -1 where a window ends early, and all over a negative window.

        Raises:
            ValueError: an id that is not in the vocabulary.
        """
        tokens = np.full((len(windows), self.seq_len + 1), -1, dtype=np.int64)
        for row, window in zip(tokens, windows, strict=True):
            if window >= 0:
                shard, offset = self.place(int(window))
                part = self._shards[shard][offset : offset + self.seq_len + 1]
                if part.max(initial=0) >= self.vocab_size:
                    raise ValueError(
                        f"{self._files[shard][0]}: token {int(part.max())} near {offset:,} is not in the vocabulary of "
                        f"{self.vocab_size:,}: the shard is damaged, or of another tokenizer. Run `python cli.py "
                        f"prepare` again."
                    )
                row[: len(part)] = part
        return tokens

    def documents(self, windows: Sequence[int] | np.ndarray, document_starts: Sequence[np.ndarray]) -> np.ndarray:
        """The document that each input token of some windows is in, (B, T) int64, counted over all shards.

        Args:
            windows: indices; rows of negative ones hold -1.
            document_starts: from `document_starts`.
        """
        before = np.concatenate(([0], np.cumsum([len(starts) for starts in document_starts])))
        ids = np.full((len(windows), self.seq_len), -1, dtype=np.int64)
        for row, window in zip(ids, windows, strict=True):
            if window >= 0:
                shard, offset = self.place(int(window))
                at = np.arange(offset, offset + self.seq_len)
                row[:] = before[shard] + np.searchsorted(document_starts[shard], at, side="right") - 1
        return ids

    def targets_of_documents(self, document_starts: Sequence[np.ndarray]) -> np.ndarray:
        """How many targets continue each document, (documents,) int64, as `documents` counts them.

        Args:
            document_starts: from `document_starts`.
        """
        counts = np.zeros(sum(len(starts) for starts in document_starts), dtype=np.int64)
        first = 0
        for shard, starts in zip(self._shards, document_starts, strict=True):
            edges = np.append(starts, len(shard)).clip(max=max(0, len(shard) - 1))  # the last token continues nothing
            counts[first : first + len(starts)] += np.diff(edges)
            if first:
                counts[first - 1] += edges[0]  # the rest of a document that began in the shard before
            first += len(starts)
        return counts

    def document_starts(self, end_of_text: int) -> list[np.ndarray]:
        """Where the documents of each shard start: the places of the end-of-text token, which precedes each."""
        return [np.flatnonzero(np.asarray(shard) == end_of_text) for shard in self._shards]


class TrainingDataset(Dataset[dict[str, Tensor]]):
    """Batches by global sample index, in the order of `window_of_sample`.

    Args:
        windows: full windows of the training split.
        seed: of the order.
        end_of_text: if given, batches carry `document_ids` (B, T), which part documents in attention.
    """

    def __init__(self, windows: TokenWindows, seed: int, end_of_text: int | None = None) -> None:
        self.windows, self.seed, self.end_of_text = windows, seed, end_of_text

    def __len__(self) -> int:
        """Windows, not samples: those go on for ever."""
        return len(self.windows)

    def __getitem__(self, samples: list[int]) -> dict[str, Tensor]:
        """`tokens` and `targets`, each (B, T) int64, and `document_ids` if asked for."""
        chosen = window_of_sample(np.asarray(samples, dtype=np.int64), len(self.windows), self.seed)
        tokens = torch.from_numpy(self.windows.read(chosen))
        batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}
        if self.end_of_text is not None:
            batch["document_ids"] = (batch["tokens"] == self.end_of_text).cumsum(dim=1)
        return batch


class EvaluationDataset(Dataset[dict[str, Tensor]]):
    """Batches by window index; together they predict every token of the split once.

    Args:
        windows: covering windows of the split.
        token_num_bytes: bytes that each id stands for, (V,).
        end_of_text: id of the token that precedes every document.
        mask_documents: batches carry `document_ids`, as in training.
        name_documents: batches carry `documents`.
    """

    def __init__(
        self,
        windows: TokenWindows,
        token_num_bytes: np.ndarray,
        end_of_text: int,
        *,
        mask_documents: bool = False,
        name_documents: bool = False,
    ) -> None:
        self.windows, self.end_of_text, self.mask_documents = windows, end_of_text, mask_documents
        self._num_bytes = torch.from_numpy(token_num_bytes)
        self._document_starts = windows.document_starts(end_of_text) if name_documents else None

    def __len__(self) -> int:
        return len(self.windows)

    def targets_of_documents(self) -> np.ndarray:
        """How many targets continue each document of the split, (documents,) int64; `documents` must be asked for."""
        assert self._document_starts is not None
        return self.windows.targets_of_documents(self._document_starts)

    def __getitem__(self, windows: list[int]) -> dict[str, Tensor]:
        """A batch of windows; a negative index gives one that counts for nothing.

        Returns:
            `tokens` (B, T), `targets` (B, T) with IGNORED_TARGET after the end, `target_bytes` (B, T); if asked for
            `documents` (B, T), the index in the split of the document that each target continues, and `document_ids`.
        """
        tokens = torch.from_numpy(self.windows.read(windows))
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        ended = targets < 0
        batch = {
            "tokens": inputs.clamp(min=0),
            "targets": targets.masked_fill(ended, IGNORED_TARGET),
            "target_bytes": self._num_bytes[targets.clamp(min=0)].masked_fill(ended, 0),
        }
        if self._document_starts is not None:
            batch["documents"] = torch.from_numpy(self.windows.documents(windows, self._document_starts))
        if self.mask_documents:
            batch["document_ids"] = (inputs == self.end_of_text).cumsum(dim=1)
        return batch

"""Token shards on disk, in llm.c's format: a header of 256 int32, then the ids.

Header: magic, version, number of tokens, zeros. (20240520, 1) holds uint16 ids, (20240801, 7) uint32.
"""

from pathlib import Path
from typing import Any

import numpy as np

HEADER_INTS = 256
HEADER_BYTES = HEADER_INTS * 4
_FORMATS: dict[tuple[int, int], np.dtype[Any]] = {(20240520, 1): np.dtype("<u2"), (20240801, 7): np.dtype("<u4")}


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The narrowest type of a shard that holds every id below `vocab_size`."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """Write ids of type uint16 or uint32 as a shard.

    Raises:
        ValueError: another type.
    """
    for (magic, version), dtype in _FORMATS.items():
        if tokens.dtype == dtype:
            header = np.zeros(HEADER_INTS, dtype="<i4")
            header[:3] = magic, version, len(tokens)
            with path.open("wb") as file:
                file.write(header.tobytes())
                file.write(tokens.tobytes())
            return
    raise ValueError(f"{path}: tokens of type {tokens.dtype} do not fit a shard; expected uint16 or uint32.")


def open_shard(path: str | Path, expected_tokens: int | None = None) -> np.ndarray:
    """Map a shard's ids into memory, read-only.

    Args:
        path: the file.
        expected_tokens: what the manifest says it holds.

    Raises:
        ValueError: the file is missing or too short, has another magic, version or count, or its size does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such shard. Run `python cli.py prepare` again, or correct data.path.")
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise ValueError(f"{path}: {size} bytes are too few for a shard's header of {HEADER_BYTES}; the file is cut.")
    magic, version, count = (int(number) for number in np.fromfile(path, dtype="<i4", count=3))
    if (magic, version) not in _FORMATS:
        raise ValueError(
            f"{path}: not a token shard: magic {magic} and version {version}, expected one of {sorted(_FORMATS)}."
        )
    dtype = _FORMATS[magic, version]
    if size != HEADER_BYTES + count * dtype.itemsize:
        raise ValueError(
            f"{path}: {count:,} tokens need {HEADER_BYTES + count * dtype.itemsize:,} bytes, the file has {size:,}; "
            f"it is cut or damaged. Run `python cli.py prepare` again."
        )
    if expected_tokens is not None and count != expected_tokens:
        raise ValueError(f"{path}: holds {count:,} tokens, but the manifest says {expected_tokens:,}.")
    if count == 0:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(count,))


class ShardWriter:
    """Collects the tokens of documents into shards of bounded size; a document may cross shards.

    Args:
        folder: where the shards go.
        stem: files are `{stem}_{number:05d}.bin`.
        vocab_size: decides the type of the ids.
        shard_tokens: tokens a shard.
    """

    def __init__(self, folder: Path, stem: str, vocab_size: int, shard_tokens: int) -> None:
        self.folder, self.stem, self.shard_tokens = folder, stem, shard_tokens
        self.dtype = token_dtype(vocab_size)
        self.files: list[tuple[Path, int]] = []
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0

    def add(self, tokens: np.ndarray) -> None:
        """Append ids, and write the shards that they fill."""
        self._waiting.append(tokens.astype(self.dtype))
        self._num_waiting += len(tokens)
        while self._num_waiting >= self.shard_tokens:
            self._write(self.shard_tokens)

    def close(self) -> list[tuple[Path, int]]:
        """Write what is left; returns every file with its number of tokens."""
        if self._num_waiting:
            self._write(self._num_waiting)
        return self.files

    def _write(self, count: int) -> None:
        tokens = np.concatenate(self._waiting)
        path = self.folder / f"{self.stem}_{len(self.files):05d}.bin"
        write_shard(path, tokens[:count])
        self.files.append((path, count))
        self._waiting = [tokens[count:]]
        self._num_waiting = len(tokens) - count

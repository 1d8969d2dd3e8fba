"""How Lightning reads and writes our checkpoints, and what happens when one cannot be written."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lit_t6.training.checkpoint_files import freed_behind, is_sharded, verify_file, write_atomically
from lit_t6.training.checkpoint_shards import read_whole, set_aside
from lit_t6.training.messages import warn

OnSaveError = Literal["warn", "stop"]


class CheckpointNotSaved(OSError):
    """A checkpoint could not be written; the one before it is whole."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning plugin: writes checkpoints all or nothing, with their hash; verifies them before they are loaded.

    Give it to any Trainer: `Trainer(plugins=[SafeCheckpointIO()])`. It also reads what `ShardedStrategy` writes in
    several files. Addresses with a scheme (s3://…) are left to Lightning, though loaded with `weights_only` as well.

    Args:
        on_save_error: what `save_checkpoint` below does when the disk is full or fails: "warn" and go on training, or
            "stop" with an error.
    """

    def __init__(self, on_save_error: OnSaveError = "warn") -> None:
        self.on_save_error = on_save_error
        self._kept: list[str] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; see `write_atomically`.

        Raises:
            CheckpointNotSaved: the disk is full or fails.
        """
        if storage_options is not None or _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with self.noting_errors(Path(path)):
            exchange = {"exchange": set_aside(Path(path))} if is_sharded(path) else {}
            write_atomically(checkpoint, path, **exchange)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Verify a checkpoint and load it, running nothing that it holds unless `weights_only=False` is asked for.

        Raises:
            DamagedCheckpoint: it is truncated or changed.
            FileNotFoundError: there is none.
        """
        weights_only = True if weights_only is None else weights_only
        map_location = map_location or (lambda storage, location: storage)
        if _is_remote(path) or not (Path(path).is_file() or is_sharded(path)):
            return super().load_checkpoint(path, map_location, weights_only)
        verify_file(path)
        if is_sharded(path):
            return read_whole(Path(path), map_location, weights_only)
        # No mmap: an optimizer keeps tensors as they are, and they must not depend on the file from then on.
        return torch.load(path, map_location=map_location, weights_only=weights_only)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, in one file or in several; a large file is freed behind, see `freed_behind`."""
        with contextlib.nullcontext() if _is_remote(path) else freed_behind(Path(path)):
            super().remove_checkpoint(path)

    @contextlib.contextmanager
    def noting_errors(self, path: Path) -> Iterator[None]:
        """Explain what goes wrong in writing a checkpoint, and raise it, or keep it in `keeping_errors`.

        Args:
            path: of the checkpoint.

        Raises:
            CheckpointNotSaved: the disk is full or fails.
        """
        try:
            yield
        except OSError as error:
            message = _explain(path, error)
            if self._kept is None:
                raise CheckpointNotSaved(message) from error
            self._kept.append(message)

    @contextlib.contextmanager
    def keeping_errors(self) -> Iterator[list[str]]:
        """Note what cannot be written instead of raising: an error on one rank alone would leave the others waiting."""
        kept: list[str] = []
        self._kept = kept
        try:
            yield kept
        finally:
            self._kept = None


def save_checkpoint(trainer: L.Trainer, path: str | Path, weights_only: bool = False) -> bool:
    """Save a checkpoint from a callback; all ranks must call it, and all learn what came of it.

    Where another plugin than `SafeCheckpointIO` writes, its errors are raised as they come.

    Args:
        trainer: that trains.
        path: of the file.
        weights_only: leave out the state of the training.

    Returns:
        Whether it was saved; if not, rank 0 has printed a warning.

    Raises:
        CheckpointNotSaved: it was not, and the plugin's `on_save_error` is "stop".
    """
    io = trainer.strategy.checkpoint_io
    if not isinstance(io, SafeCheckpointIO):
        trainer.save_checkpoint(path, weights_only)
        return True
    with io.keeping_errors() as kept:
        trainer.save_checkpoint(path, weights_only)
    failures: list[str] = trainer.strategy.broadcast(kept)
    if not failures:
        return True
    if io.on_save_error == "stop":
        raise CheckpointNotSaved(f"{failures[0]} --on_save_error warn would train on without.")
    if trainer.is_global_zero:
        warn(f"{failures[0]} Training goes on.")
    return False


def _is_remote(path: Any) -> bool:
    return "://" in str(path)


def _explain(path: Path, error: OSError) -> str:
    known = [p for p in path.parent.glob("*.ckpt") if p.is_file() or is_sharded(p)]
    before = path if path in known else max(known, key=lambda p: p.stat().st_mtime, default=None)
    kept = f"The checkpoint before it, {before}, is whole." if before else "There is no checkpoint before it."
    try:
        free = f"{shutil.disk_usage(path.parent).free:,} bytes are free there"
    except OSError:
        free = "the folder does not answer"
    return f"{path}: the checkpoint was not saved: {error.strerror}; {free}. {kept}"

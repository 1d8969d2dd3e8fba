"""Checkpoints in several files, one of each rank's share of the tensors: a folder, read without running anything in it.

`meta.pt` holds everything but the shared-out tensors, in whose places it has `{"sharded tensor": number}`;
`shard-R-of-N.pt` holds rank R's rows of each of them, by number. Every file carries its hash (`checkpoint_files`). A
folder is written beside its place and renamed when all of it is on the disk. PyTorch's own format of such checkpoints
(torch.distributed.checkpoint) keeps its index as a pickle that is run when it is read; this one is plain data.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from lit_t6.training.checkpoint_files import (
    META,
    shard_name,
    shards_of,
    sync_folder,
    write_atomically,
)
from lit_t6.whole_files import SETTLED_SECONDS, TOKEN

_PLACE = "sharded tensor"


def separate(content: Any) -> tuple[Any, list[Tensor]]:
    """Take the shared-out tensors out of a checkpoint; all ranks find the same ones in the same order.

    Args:
        content: nested dictionaries, lists and tuples, with DTensors split by their first dimension.

    Returns:
        The same with a note in the place of each such tensor, and this rank's rows of them, on the CPU. What shares its
        memory, as tied weights do, is kept once.
    """
    rows: list[Tensor] = []
    numbers: dict[tuple[Any, ...], int] = {}

    def take(value: Tensor) -> Any:
        if not isinstance(value, DTensor):
            return value.detach().cpu()
        assert value.placements == (Shard(0),)
        local = value.to_local().detach()
        # By memory, not by the first row: a rank without rows must find tied weights as the others do.
        memory = local.untyped_storage().data_ptr()
        key = (memory, local.storage_offset(), value.shape)
        if not memory or key not in numbers:
            numbers[key] = len(rows)
            rows.append(local.to("cpu", copy=True))
        return {_PLACE: numbers[key]}

    return _walk(content, take), rows


def _walk(value: Any, take: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return take(value)
    if isinstance(value, dict):
        return type(value)((key, _walk(inside, take)) for key, inside in value.items())
    if type(value) in (list, tuple):
        return type(value)(_walk(inside, take) for inside in value)
    return value


def _put_back(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_PLACE}:
            return tensors[value[_PLACE]]
        return type(value)((key, _put_back(inside, tensors)) for key, inside in value.items())
    if type(value) in (list, tuple):
        return type(value)(_put_back(inside, tensors) for inside in value)
    return value


def read_whole(folder: Path, map_location: Any = "cpu", weights_only: bool = True) -> dict[str, Any]:
    """The checkpoint of a folder as one file would hold it, its tensors in memory; not verified.

    Args:
        folder: with all shards in it.
        map_location: as of `torch.load`.
        weights_only: likewise.

    Raises:
        DamagedCheckpoint: a file is missing.
    """
    meta, *shards = shards_of(folder)
    content = torch.load(meta, map_location=map_location, weights_only=weights_only)
    parts = [torch.load(shard, map_location=map_location, weights_only=weights_only, mmap=True) for shard in shards]
    tensors = [torch.cat(rows) for rows in zip(*parts, strict=True)]
    whole: dict[str, Any] = _put_back(content, tensors)
    return whole


@contextlib.contextmanager
def folder_to_fill(path: Path) -> Iterator[Path]:
    """A new folder beside the place of a checkpoint, removed at the end unless it was moved there (`move_into_place`).

    What processes that were killed have left is removed before. One rank calls this.

    Args:
        path: of the checkpoint.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".*.ckpt.{TOKEN}.shards"):
        with contextlib.suppress(OSError), _held(leftover):
            if time.time() - leftover.stat().st_mtime > SETTLED_SECONDS:
                shutil.rmtree(leftover)
    for leftover in path.parent.glob(f".*.ckpt.{TOKEN}.before"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_ctime > SETTLED_SECONDS:
                _put_back_or_remove(leftover)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.shards")
    beside.mkdir()
    try:
        with _held(beside):
            yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder, so that nobody takes it for a leftover.

    Raises:
        OSError: somebody else holds it.
    """
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)


def write_shard(folder: Path, rows: list[Tensor], rank: int, world_size: int) -> None:
    """Write a rank's share.

    Args:
        folder: from `folder_to_fill`.
        rows: of `separate`.
        rank: whose they are.
        world_size: ranks.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(rows, folder / shard_name(rank, world_size))


def move_into_place(folder: Path, content: Any, path: Path) -> None:
    """Write what is not shared out, and put the folder where the checkpoint is to be; its shards are written.

    A checkpoint that is there, a file or a folder, is put aside for the moment between two renamings.

    Args:
        folder: from `folder_to_fill`.
        content: of `separate`.
        path: of the checkpoint.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(content, folder / META)
    with set_aside(path):
        folder.rename(path)
        sync_folder(path.parent)


@contextlib.contextmanager
def set_aside(path: Path) -> Iterator[None]:
    """Make room for a checkpoint where another is; it is back if the new one does not come, and removed if it does.

    Args:
        path: of both.
    """
    if path.is_symlink():
        path.unlink()
    if not path.exists():
        yield
        return
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.before")
    path.rename(aside)
    try:
        yield
    finally:
        _put_back_or_remove(aside)


def _put_back_or_remove(aside: Path) -> None:
    """See to a checkpoint that was put aside: back to its place if nothing has come there, else away with it."""
    path = aside.with_name(aside.name[1:].rpartition(".")[0].rpartition(".")[0])
    if not path.exists():
        aside.rename(path)
    elif aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()

"""The hash at the end of a checkpoint."""

import errno
import hashlib
import os
import random
import zipfile

import pytest
import torch

from lit_t6.training import DamagedCheckpoint, SafeCheckpointIO, checkpoint_hash, read_checkpoint
from lit_t6.training.checkpoint_files import verify_file, write_atomically
from lit_t6.training.checkpoint_hash import HashedFile
from tests.training.disks import small
from tests.training.runs import fit

COMMENT_BYTES = 78
PART = 1 << 24


@pytest.fixture(scope="module")
def real(prepared, tmp_path_factory):
    """The bytes of a checkpoint of a short training, optimizer and all."""
    folder = tmp_path_factory.mktemp("run")
    _, trainer = fit(folder, prepared, max_steps=2, plugins=[SafeCheckpointIO()])
    trainer.save_checkpoint(folder / "real.ckpt")
    return (folder / "real.ckpt").read_bytes()


def damaged_copies(content, kind, count):
    """Copies of some bytes, each damaged at another place."""
    places = random.Random(0)
    for _ in range(count):
        if kind == "truncated":
            yield content[: places.randrange(len(content))]
            continue
        bit = places.randrange(8 * COMMENT_BYTES if kind == "comment flipped" else 8 * len(content))
        at = len(content) - 1 - bit // 8
        yield content[:at] + bytes([content[at] ^ (1 << bit % 8)]) + content[at + 1 :]


@pytest.mark.parametrize("kind", ["truncated", "flipped", "comment flipped"])
def test_damage_at_fifty_random_places_is_refused_by_every_reader(real, tmp_path, kind):
    path = tmp_path / "a.ckpt"
    path.write_bytes(real)
    assert read_checkpoint(path).content["global_step"] == 2
    for copy in damaged_copies(real, kind, 50):
        path.write_bytes(copy)
        with pytest.raises(ValueError, match="a.ckpt: not a checkpoint, or a damaged one: "):
            read_checkpoint(path)
        with pytest.raises(DamagedCheckpoint):
            SafeCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize("last", [0, 1, 2, 20, 22, 23, PART // 2])
def test_the_hash_is_of_the_hashes_of_all_parts_wherever_they_end(tmp_path, last):
    """Of a file whose last part, before the comment's length, has so many bytes."""
    path, end = tmp_path / "a.ckpt", b"PK\5\6" + bytes(16)
    content = random.Random(last).randbytes(2 * PART + last - len(end)) + end
    with path.open("x+b") as file, HashedFile(file) as hashed:
        for piece in (content[:1000], content[1000 : PART + 10], content[PART + 10 :] + bytes(2)):
            hashed.write(memoryview(piece))
        hashed.finish()
    parts = [content[start : start + PART] for start in range(0, len(content), PART)]
    hashes = b"".join(hashlib.sha256(part).digest() for part in parts)
    comment = b"lit_t6 hashes=" + hashlib.sha256(hashes).hexdigest().encode()
    assert path.read_bytes() == content + b"N\0" + comment
    verify_file(path)
    for at in (0, PART, 2 * PART - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] + b"N\0" + comment)
        with pytest.raises(DamagedCheckpoint):
            verify_file(path)


@pytest.mark.parametrize("number", [1, 2])
def test_an_error_of_the_disk_that_is_told_once_is_told(tmp_path, monkeypatch, number):
    """While the file is written, or at its end."""
    monkeypatch.setattr(checkpoint_hash, "_PARTS_A_SYNC", 1)
    calls, sync = [], os.fsync

    def fail(file):
        calls.append(file)
        if len(calls) == number:
            raise OSError(errno.EIO, "Input/output error")
        sync(file)

    monkeypatch.setattr(checkpoint_hash.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically({"weight": torch.zeros(PART // 4 + 10)}, tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == []


def test_a_file_with_one_hash_of_everything_is_read(tmp_path):
    """As they were written before there were parts."""
    path = tmp_path / "a.ckpt"
    write_atomically(small(), path)
    content = path.read_bytes()[: -COMMENT_BYTES - 2]
    comment = f"lit_t6 sha256={hashlib.sha256(content + bytes(2)).hexdigest()}".encode()
    path.write_bytes(content + b"N\0" + comment)
    verify_file(path)
    path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:] + b"N\0" + comment)
    with pytest.raises(DamagedCheckpoint, match="SHA-256 differs"):
        verify_file(path)


def test_a_file_without_our_hash_is_checked_by_its_own_sums(real, tmp_path):
    path = tmp_path / "a.ckpt"
    plain = real[: -COMMENT_BYTES - 2] + bytes(2)  # what torch.save alone writes
    path.write_bytes(plain)
    assert read_checkpoint(path).content["global_step"] == 2
    at = plain.index(torch.load(path)["state_dict"]["model.embedding.weight"].numpy().tobytes()) + 100
    path.write_bytes(plain[:at] + bytes([plain[at] ^ 1]) + plain[at + 1 :])
    with pytest.raises(ValueError, match=r"archive/data/\d+ in it is not what was written \(CRC-32 differs\)"):
        read_checkpoint(path)
    path.write_bytes(plain[:-3000])
    with pytest.raises(ValueError, match="do not end as a checkpoint does"):
        read_checkpoint(path)


def test_more_at_the_end_or_another_comment_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    write_atomically(small(), path)
    whole = path.read_bytes()
    for other in (whole + b"x", whole[:-COMMENT_BYTES], whole[: -COMMENT_BYTES - 2] + b"\x05\x00other"):
        path.write_bytes(other)
        with pytest.raises(DamagedCheckpoint):
            verify_file(path)
    path.write_bytes(whole[:-1] + b"G")
    with pytest.raises(DamagedCheckpoint, match="the comment at its end is not ours"):
        verify_file(path)


@pytest.mark.parametrize("mmap", [False, True])
def test_plain_torch_and_zip_readers_read_our_files(tmp_path, mmap):
    write_atomically(small(), tmp_path / "a.ckpt")
    loaded = torch.load(tmp_path / "a.ckpt", weights_only=True, mmap=mmap)
    assert torch.equal(loaded["weight"], small()["weight"])
    assert loaded["text"] == "é"
    with zipfile.ZipFile(tmp_path / "a.ckpt") as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"lit_t6 hashes=")

import contextlib
import errno
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from lit_t6.training import DamagedCheckpoint, SafeCheckpointIO, checkpoint_files, read_checkpoint
from lit_t6.training.checkpoint_files import verify_file, write_atomically
from lit_t6.whole_files import hold
from tests.training.disks import small_disk
from tests.training.runs import fit

COMMENT_BYTES = 78


@pytest.fixture(scope="module")
def real(prepared, tmp_path_factory):
    """The bytes of a checkpoint of a short training, optimizer and all."""
    folder = tmp_path_factory.mktemp("run")
    _, trainer = fit(folder, prepared, max_steps=2, plugins=[SafeCheckpointIO()])
    trainer.save_checkpoint(folder / "real.ckpt")
    return (folder / "real.ckpt").read_bytes()


def small():
    return {"step": 3, "weight": torch.arange(1000.0), "text": "é"}


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
        assert archive.comment.startswith(b"lit_t6 sha256=")


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


def test_a_file_is_hashed_once_while_it_stays_the_same(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    write_atomically(small(), path)
    monkeypatch.setattr(checkpoint_files, "SETTLED_SECONDS", 0.0)
    hashed = []
    monkeypatch.setattr(checkpoint_files, "_verify", lambda file, size: hashed.append(size))
    time.sleep(0.05)
    verify_file(path)
    verify_file(path)
    assert len(hashed) == 1
    write_atomically(small(), path)
    time.sleep(0.05)
    verify_file(path)
    assert len(hashed) == 2


class Filling:
    """A file on a disk with room for some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 100, 700, 5000, 5400])
def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch, room):
    path = tmp_path / "a.ckpt"
    write_atomically(small(), path)
    before = path.read_bytes()
    assert len(before) > 5400
    hashed = checkpoint_files._Hashed
    monkeypatch.setattr(checkpoint_files, "_Hashed", lambda file: hashed(Filling(file, room)))
    with pytest.raises(OSError, match=r"No space left on device \(after \d[\d,]* bytes\)") as caught:
        write_atomically({"weight": torch.ones(1000)}, path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ckpt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_after_the_last_byte_leaves_the_file_that_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "a.ckpt"
    write_atomically(small(), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if call == "fsync":
        monkeypatch.setattr(checkpoint_files.os, "fsync", fail)
    else:
        monkeypatch.setattr(checkpoint_files.Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically({"other": 1}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_what_cannot_be_pickled_is_no_matter_of_the_disk(tmp_path):
    with pytest.raises((AttributeError, pickle.PicklingError), match="Can't (pickle|get) local object"):
        write_atomically({"f": lambda: 0}, tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == []


def test_leftovers_of_dead_processes_are_removed_and_those_at_work_are_not(tmp_path):
    dead, alive = tmp_path / ".a.ckpt.0123abcd.tmp", tmp_path / ".b.ckpt.89ef4567.tmp"
    names = ("c.tmp", ".mine.ckpt.backup.tmp", ".mine.ckpt.2026.tmp", "d.ckpt.0123abcd.tmp", ".e.ckpt.0123abcd")
    others = [tmp_path / name for name in names]
    for path in (dead, alive, *others):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    with alive.open("rb") as file:
        assert hold(file)
        write_atomically(small(), tmp_path / "a.ckpt")
    assert not dead.exists()
    assert alive.exists()
    assert all(path.exists() for path in others)


def test_a_slow_disk_does_not_make_a_leftover_of_what_is_being_written(tmp_path, monkeypatch):
    """It looks old by the time that it gets its name."""

    @contextlib.contextmanager
    def much_later():
        (beside,) = tmp_path.iterdir()
        os.utime(beside, (0, 0))
        write_atomically(small(), tmp_path / "b.ckpt")
        yield

    write_atomically(small(), tmp_path / "a.ckpt", much_later())
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "b.ckpt"]


LIMITED = """
import resource, signal, sys, torch
from lit_t6.training.checkpoint_files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    write_atomically({"weight": torch.ones(10000)}, sys.argv[1])
except OSError as error:
    print(error.errno)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system does not limit sizes of files")
def test_a_real_limit_of_the_system_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.ckpt"
    write_atomically(small(), path)
    before = path.read_bytes()
    result = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert int(result.stdout) == errno.EFBIG
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ckpt"]


@pytest.mark.slow
def test_a_real_full_file_system_leaves_the_file_that_was_there(tmp_path):
    with small_disk(tmp_path / "disk", "256k") as disk:
        write_atomically({"weight": torch.ones(20000)}, disk / "a.ckpt")
        with pytest.raises(OSError, match="No space left on device"):
            write_atomically({"weight": torch.zeros(60000)}, disk / "a.ckpt")
        assert torch.load(disk / "a.ckpt")["weight"].sum() == 20000
        assert os.listdir(disk) == ["a.ckpt"]


ENDLESS = """
import sys, torch
from lit_t6.training.checkpoint_files import write_atomically
n = 0
while True:
    n += 1
    write_atomically({"weight": torch.full((300_000,), float(n))}, sys.argv[1])
    print(n, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path, wait = tmp_path / "a.ckpt", random.Random(0)
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", ENDLESS, path], stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(wait.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            printed = process.stdout.read().split()
        verify_file(path)
        number = torch.load(path, weights_only=True)["weight"].unique()
        assert len(number) == 1
        assert not printed or number in (int(printed[-1]), int(printed[-1]) + 1)
    for leftover in tmp_path.glob(".*"):
        os.utime(leftover, (0, 0))
    write_atomically(small(), path)
    assert os.listdir(tmp_path) == ["a.ckpt"]

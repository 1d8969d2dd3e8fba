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
from pathlib import Path

import pytest
import torch
from torch.utils.serialization import config as serialization

from lit_t6.training import SafeCheckpointIO, checkpoint_files
from lit_t6.training.checkpoint_files import verify_file, write_atomically
from lit_t6.whole_files import hold
from tests.training.disks import small, small_disk
from tests.training.endless import wait_for


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("end", ["removed", "replaced", "neither"])
def test_a_large_file_that_is_removed_or_replaced_is_held_until_then_and_let_go(tmp_path, monkeypatch, end):
    monkeypatch.setattr(checkpoint_files, "_LARGE", 1000)
    path, closed, close = tmp_path / "a.ckpt", [], os.close

    def held():
        """Files of this process that have no name any more."""
        names = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                names.append(os.readlink(link))
        return [name for name in names if name.startswith(str(tmp_path))]

    def note(number):
        with contextlib.suppress(OSError):
            closed.append(os.readlink(f"/proc/self/fd/{number}"))
        close(number)

    write_atomically(small(), path)
    monkeypatch.setattr(checkpoint_files.os, "close", note)
    if end == "removed":
        SafeCheckpointIO().remove_checkpoint(path)
    elif end == "replaced":
        write_atomically({"other": 1}, path)
    else:
        with contextlib.suppress(ValueError), checkpoint_files.freed_behind(path):
            raise ValueError
    assert wait_for(lambda: not held())
    assert (f"{path} (deleted)" in closed) == (end != "neither")
    assert path.exists() == (end != "removed")


def test_a_file_is_hashed_once_while_it_stays_the_same(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    write_atomically(small(), path)
    monkeypatch.setattr(checkpoint_files, "SETTLED_SECONDS", 0.0)
    hashed = []
    monkeypatch.setattr(checkpoint_files, "verify_hash", lambda file, size: hashed.append(size))
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
    hashed = checkpoint_files.HashedFile
    monkeypatch.setattr(checkpoint_files, "HashedFile", lambda file: hashed(Filling(file, room)))
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


def test_a_checkpoint_is_written_where_the_system_gives_no_pinned_memory(tmp_path, monkeypatch):
    save, tried = torch.save, []

    def attempt(content, file):
        tried.append(serialization.save.use_pinned_memory_for_d2h)
        if tried[-1]:
            file.write(memoryview(b"a beginning"))
            raise RuntimeError("CUDA error: out of memory")
        save(content, file)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "save", attempt)
    write_atomically(small(), tmp_path / "a.ckpt")
    assert tried == [True, False]
    verify_file(tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == ["a.ckpt"]


@pytest.mark.gpu
def test_what_a_gpu_holds_is_written_as_it_is(tmp_path):
    """Several storages of some sizes, by way of the same memory; a view is written with what it is of."""
    drawn = [torch.randn(size, device="cuda") for size in (3, 3 << 20, 1 << 21, 1000, 3 << 20)]
    content = {"drawn": drawn, "part": drawn[1][100:200], "host": torch.arange(5)}
    write_atomically(content, tmp_path / "a.ckpt")
    verify_file(tmp_path / "a.ckpt")
    read = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert all(torch.equal(x, y) and y.is_cuda for x, y in zip(drawn, read["drawn"], strict=True))
    assert torch.equal(read["part"], drawn[1][100:200])
    assert torch.equal(read["host"], content["host"])

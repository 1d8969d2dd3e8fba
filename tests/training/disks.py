"""Disks that are full, for tests."""

import contextlib
import os
import resource
import subprocess

import pytest
import torch


@contextlib.contextmanager
def files_no_longer_than(size):
    """The system writes no byte of a file beyond this, in this process; a write over it is cut, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of its own in a new folder; the test is skipped where that is not allowed."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("may not mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk):
    """Write a file that leaves no space."""
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize))


def small():
    """What a small checkpoint holds."""
    return {"step": 3, "weight": torch.arange(1000.0), "text": "é"}

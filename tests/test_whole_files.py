import os
from pathlib import Path

import pytest

from lit_t6.whole_files import hold, remove_leftovers, replace_bytes, replace_text


def test_a_file_has_the_new_content_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "events.out.tfevents.1"
    replace_bytes(path, b"before")
    replace_text(path, "a mean of 3 ± 1")
    assert path.read_text(encoding="utf-8") == "a mean of 3 ± 1"
    assert os.listdir(tmp_path) == [path.name]


def test_what_is_written_meanwhile_has_no_name_that_tensorboard_would_read(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(os.listdir(tmp_path)))
    replace_bytes(tmp_path / "events.out.tfevents.1", b"")
    assert len(seen) == 1
    assert "tfevents" not in seen[0]


def test_a_file_that_cannot_be_written_stays_and_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        replace_bytes(path, b"after")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a"]


def test_what_killed_processes_left_is_removed_and_what_is_being_written_is_not(tmp_path):
    dead, alive, new = (tmp_path / f".replaced.{token}.partial" for token in ("0123abcd", "89ef4567", "76543210"))
    others = [tmp_path / name for name in (".replaced.mine.partial", "replaced.0123abcd.partial", ".replaced.0123abcd")]
    for path in (dead, alive, *others):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    new.write_bytes(b"half")  # may not be held yet
    with alive.open("rb") as file:
        assert hold(file)
        replace_bytes(tmp_path / "a", b"whole")
    assert not dead.exists()
    assert all(path.exists() for path in (alive, new, *others))


def test_a_slow_disk_does_not_make_a_leftover_of_what_is_being_written(tmp_path, monkeypatch):
    """It looks old by the time that it gets its name."""

    def slow(number):
        os.utime(number, (0, 0))

    def replace(self, target, rename=Path.replace):
        remove_leftovers(tmp_path, ".replaced.*.partial")  # as another process would
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr(Path, "replace", replace)
    replace_bytes(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"

import os

import pytest

from lit_t6.whole_files import replace_bytes, replace_text


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

import json
import os
import shutil

import pytest

from lit_t6.data import TokenDataModule, read_manifest, verify
from lit_t6.data.verify import verify_shards


@pytest.fixture
def folder(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "data", ignore=shutil.ignore_patterns("verified.json"))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_is_found(folder):
    flip_a_byte(folder / "train_00000.bin")
    with pytest.raises(ValueError, match=r"train_00000.bin: damaged: .* Run `python cli.py prepare` again"):
        TokenDataModule(folder).prepare_data()


def test_what_was_found_right_is_read_once(folder, monkeypatch):
    manifest = read_manifest(folder)
    verify_shards(folder, manifest)
    assert set(json.loads((folder / "verified.json").read_text())) == {p.name for p in folder.glob("*.bin")}
    monkeypatch.setattr(verify, "file_hash", None)  # not to be called
    verify_shards(folder, manifest)


def test_a_shard_changed_later_is_read_again(folder):
    manifest = read_manifest(folder)
    verify_shards(folder, manifest)
    flip_a_byte(folder / "validation_00000.bin")
    os.utime(folder / "validation_00000.bin", ns=(1, 1))
    with pytest.raises(ValueError, match="validation_00000.bin: damaged"):
        verify_shards(folder, manifest)


def test_notes_that_are_cut_or_cannot_be_written_do_no_harm(folder, monkeypatch):
    manifest = read_manifest(folder)
    (folder / "verified.json").write_text('{"train_')
    verify_shards(folder, manifest)
    (folder / "verified.json").unlink()
    monkeypatch.setattr(verify.Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    verify_shards(folder, manifest)
    assert not (folder / "verified.json").exists()

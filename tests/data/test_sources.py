import gzip
import json
import lzma

import pytest

from lit_t6.data.sources import find_files, iterate_documents


def test_a_folder_of_everything(tmp_path):
    (tmp_path / "b.txt").write_text("zwei\r\nZeilen")
    (tmp_path / "blank.txt").write_text(" \n ")
    (tmp_path / "ignored.py").write_text("code")
    (tmp_path / "deep").mkdir()
    with lzma.open(tmp_path / "deep" / "a.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": "jé"}) + "\n\n" + json.dumps({"text": "b", "other": 1}) + "\n")
    with gzip.open(tmp_path / "c.md.gz", "wt") as file:
        file.write("# c")
    files = find_files([tmp_path])
    assert [path.name for path in files] == ["b.txt", "blank.txt", "c.md.gz", "a.jsonl.xz"]
    assert list(iterate_documents(files)) == ["zwei\r\nZeilen", "# c", "jé", "b"]


def test_another_key(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x"}\n')
    assert list(iterate_documents([path], "body")) == ["x"]
    with pytest.raises(ValueError, match=r"a.jsonl, line 1: expected text under the key 'text', found body"):
        list(iterate_documents([path]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b"[1, 2]\n", "expected text under the key 'text', found list"),
        ("a.txt", b"ab\xff", "a.txt: not UTF-8 text .* at byte 2"),
        ("a.txt.gz", b"not packed", "a.txt.gz: cannot be read: damaged"),
        ("a.txt.gz", gzip.compress(bytes(range(256)))[:-20] + b"damaged" * 5, "a.txt.gz: cannot be read: damaged"),
        ("a.txt.xz", b"not packed", "a.txt.xz: cannot be read: damaged"),
        ("a.txt.bz2", b"not packed", "a.txt.bz2: cannot be read: damaged"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(iterate_documents([path]))


def test_inputs_that_are_none(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="missing.txt: no such file or folder"):
        find_files([tmp_path / "missing.txt"])
    with pytest.raises(
        ValueError, match=r"no text in this folder; looked for .txt, .* It holds 1 file \(1 .parquet\)."
    ):
        find_files([tmp_path])
    with pytest.raises(ValueError, match="Parquet is not read; convert it to JSONL"):
        find_files([tmp_path / "a.parquet"])
    with pytest.raises(ValueError, match="no input"):
        find_files([])

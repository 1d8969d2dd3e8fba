import pickle

import numpy as np
import pytest
import torch

from lit_t6.data.dataset import IGNORED_TARGET, EvaluationDataset, TokenWindows, TrainingDataset
from lit_t6.data.manifest import ShardInfo, SplitInfo
from lit_t6.data.order import window_of_sample
from lit_t6.data.shards import write_shard

EOT = 0


@pytest.fixture
def split(tmp_path):
    """Two shards; documents start at tokens 0, 4, 15 (second shard) and 17."""
    first = np.array([EOT, 1, 2, 3, EOT, 5, 6, 7, 8, 9, 10, 11], dtype=np.uint16)
    second = np.array([12, 13, 14, EOT, 16, EOT, 18], dtype=np.uint16)
    for n, tokens in enumerate((first, second)):
        write_shard(tmp_path / f"{n}.bin", tokens)
    return tmp_path, SplitInfo(4, 19, 15, [ShardInfo("0.bin", 12, ""), ShardInfo("1.bin", 7, "")])


def test_full_windows_overlap_by_one_token(split):
    windows = TokenWindows(*split, seq_len=4, vocab_size=400, cover=False)
    assert len(windows) == 2 + 1
    assert windows.read([0, 1, 2]).tolist() == [[0, 1, 2, 3, 0], [0, 5, 6, 7, 8], [12, 13, 14, 0, 16]]


def test_covering_windows_predict_every_token_but_a_shards_first(split):
    windows = TokenWindows(*split, seq_len=4, vocab_size=400, cover=True)
    tokens = windows.read(range(len(windows)))
    targets = tokens[:, 1:]
    assert targets[targets >= 0].tolist() == [1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 13, 14, 0, 16, 0, 18]


def test_another_process_maps_the_files_itself(split):
    windows = TokenWindows(*split, seq_len=4, vocab_size=400, cover=True)
    sent = pickle.dumps(windows)
    assert pickle.loads(sent).read([0, 4]).tolist() == windows.read([0, 4]).tolist()


def test_training_batches_follow_the_global_order(split):
    windows = TokenWindows(*split, seq_len=4, vocab_size=400, cover=False)
    dataset = TrainingDataset(windows, seed=9, end_of_text=EOT)
    samples = [3, 4, 5, 100]
    batch = dataset[samples]
    expected = torch.from_numpy(windows.read(window_of_sample(np.array(samples), 3, 9)))
    assert torch.equal(batch["tokens"], expected[:, :-1])
    assert torch.equal(batch["targets"], expected[:, 1:])
    row = batch["tokens"].tolist().index([12, 13, 14, EOT])
    assert batch["document_ids"][row].tolist() == [0, 0, 0, 1]
    assert "document_ids" not in TrainingDataset(windows, seed=9)[samples]


def test_evaluation_batches(split):
    windows = TokenWindows(*split, seq_len=4, vocab_size=400, cover=True)
    num_bytes = np.arange(19, dtype=np.int32)  # a token's id stands for its bytes
    dataset = EvaluationDataset(windows, num_bytes, EOT, name_documents=True)
    batch = dataset[[2, 3, 4, -1]]
    ignored = IGNORED_TARGET
    assert batch["targets"].tolist() == [
        [9, 10, 11, ignored],
        [13, 14, 0, 16],
        [0, 18, ignored, ignored],
        [ignored] * 4,
    ]
    assert batch["target_bytes"].tolist() == [[9, 10, 11, 0], [13, 14, 0, 16], [0, 18, 0, 0], [0] * 4]
    counted = batch["targets"] != ignored
    assert batch["documents"][counted].tolist() == [1, 1, 1, 1, 1, 1, 2, 2, 3]
    assert (batch["tokens"] >= 0).all()
    everything = dataset[list(range(len(dataset)))]
    documents = everything["documents"][everything["targets"] != ignored]
    assert documents.bincount().tolist() == dataset.targets_of_documents().tolist() == [4, 10, 2, 1]


def test_an_id_outside_the_vocabulary_is_refused(split):
    windows = TokenWindows(*split, seq_len=4, vocab_size=3, cover=True)
    with pytest.raises(ValueError, match=r"\.bin: token \d+ near 0 is not in the vocabulary of 3"):
        windows.read([0])


def test_a_vocabulary_above_the_shards_type_is_refused(split):
    with pytest.raises(ValueError, match="ids of type uint16, which ends at 65,535, but the vocabulary has 70,000"):
        TokenWindows(*split, seq_len=4, vocab_size=70_000, cover=True)

from pathlib import Path

import pytest
import torch

from lit_t6.data import load_tokenizer
from lit_t6.training import read_checkpoint
from lit_t6.training.checkpoint import check_vocabulary


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.ckpt: no such checkpoint"),
        (b"", "a.ckpt: not a checkpoint, or a damaged one"),
        (Path("README.md").read_bytes(), "a.ckpt: not a checkpoint, or a damaged one"),
        ({"state_dict": {}}, "a.ckpt: not a checkpoint of lit_t6: it does not say what model it holds"),
        ([1, 2], "not a checkpoint of lit_t6"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content, message):
    path = tmp_path / "a.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"hyper_parameters": {"config": {}}, "state_dict": {"a": torch.randn(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(("vocab_size", "fits"), [(399, False), (400, True), (1024, True), (1025, False)])
def test_a_vocabulary_may_be_padded(prepared, vocab_size, fits):
    tokenizer = load_tokenizer(prepared / "tokenizer.json")
    if fits:
        check_vocabulary(tokenizer, vocab_size)
    else:
        with pytest.raises(
            ValueError, match=f"the tokenizer has 400 tokens, but the model has vocab_size={vocab_size}"
        ):
            check_vocabulary(tokenizer, vocab_size)

from pathlib import Path

import pytest
import torch

from lit_t6.training import read_checkpoint


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

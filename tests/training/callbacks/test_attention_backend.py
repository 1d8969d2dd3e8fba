from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.ops import fused
from lit_t6.training import AttentionBackend

from ..runs import SMALL, fit


@pytest.fixture
def measured(monkeypatch):
    """As after a first step on a GPU."""
    choice = fused.Choice((4, 32, 3, 8), torch.bfloat16, "flash", {"cudnn": 2.0, "flash": 1.0})
    monkeypatch.setattr(fused, "choices", lambda: [choice])


@pytest.mark.usefixtures("measured")
def test_what_is_taken_is_told_once_after_the_first_step(tmp_path, prepared, capsys):
    fit(tmp_path, prepared, max_steps=3)
    told = (
        "attention, 4 × 32 × 3 × 8 (B, T, H, D) of bfloat16, forward and back: cudnn 2.000 ms, flash 1.000 ms; taken: "
    )
    assert capsys.readouterr().out.count(told + "flash\n") == 1
    (text,) = EventAccumulator(str(tmp_path / "run")).Reload().Tensors("run/attention")
    assert told in text.tensor_proto.string_val[0].decode()


def test_where_nothing_was_measured_nothing_is_told(tmp_path, prepared, capsys):
    fit(tmp_path, prepared, max_steps=1)
    assert "attention, " not in capsys.readouterr().out
    assert "run/attention" not in EventAccumulator(str(tmp_path / "run")).Reload().Tags()["tensors"]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)])
def test_several_ranks_agree_before_they_begin(monkeypatch, precision, dtype):
    agreed = []
    monkeypatch.setattr(fused, "agree", lambda *arguments: agreed.append(arguments))
    monkeypatch.setattr(
        fused, "usable", lambda dtype, _: ["efficient"] if dtype == torch.float32 else ["flash", "cudnn"]
    )
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    device = torch.device("cuda", 1)

    def set_up(world_size, precision):
        trainer = SimpleNamespace(
            world_size=world_size, precision=precision, strategy=SimpleNamespace(root_device=device)
        )
        AttentionBackend(SMALL).setup(trainer, None, "fit")

    set_up(1, precision)
    set_up(2, "32-true")  # there is one only
    assert agreed == []
    set_up(2, precision)
    assert agreed == [((1, 32, 3, 8), dtype, device)]

import json

import pytest
import torch
import yaml

from experiments.train_speed import curves


def test_batches_are_those_of_the_seed_and_half_repeated():
    (tokens, targets), second = curves.batches(50, 3, 400, 2, seed=1)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    again = next(curves.batches(50, 3, 400, 1, seed=1))
    assert torch.equal(tokens, again[0])
    assert not torch.equal(tokens, second[0])
    repeated = (tokens[:, curves.BACK :] == tokens[:, : -curves.BACK]).float().mean()
    assert 0.5 < repeated < 0.62


def test_the_fast_path_learns_as_the_reference_does(tmp_path, capsys):
    attention = {"class_path": "TPA", "init_args": {"num_heads": 3, "head_dim": 16}}
    model = {"vocab_size": 50, "d_model": 32, "num_layers": 2, "attention": attention}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"model": model}))
    words = [f"--config={tmp_path / 'tiny.yaml'}", "--steps=20", "--batch=4", "--seq_len=24", "--lr=0.01"]
    before = torch.get_float32_matmul_precision()
    found = curves.main([*words, "--no_compile", "--device=cpu", f"--output={tmp_path / 'out'}"])
    torch.set_float32_matmul_precision(before)
    fast, reference = found["curves"]["fast"], found["curves"]["reference"]
    assert len(fast) == len(reference) == len(found["curves"]["reference in float32"]) == 20
    assert fast[-1] < fast[0] - 0.2
    apart = found["fast_and_reference"]
    assert apart["largest"] == max(abs(x - y) for x, y in zip(fast, reference, strict=True))
    assert 0 < apart["mean"] <= apart["largest"] < 0.05
    assert json.loads((tmp_path / "out" / "curves.json").read_text()) == found
    assert (tmp_path / "out" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert f"fast and reference: at most {apart['largest']:.2e} nats apart" in capsys.readouterr().out


def test_differences():
    assert curves.differences([1.0, 2.0], [1.5, 2.0]) == pytest.approx({"largest": 0.5, "mean": 0.25, "last": 0.0})

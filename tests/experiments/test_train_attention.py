import json

import pytest
import torch

from experiments.train_speed import attention, attention_truth
from experiments.train_speed.attention import Shape
from experiments.train_speed.attention_truth import Heads, Truth, by_products
from lit_t6.ops import fused
from lit_t6.ops.dense import hopper


def test_a_table_is_written(tmp_path, capsys):
    assert attention.main([f"--output={tmp_path}", "--device=cpu", "--shape=2x70x3", "--shape=1x33x2"]) == 0
    whole = json.loads((tmp_path / "attention.json").read_text())
    assert whole["settings"]["backend"] == ["cpu"]
    assert isinstance(whole["settings"]["seed"], int)
    assert [each["shape"] for each in whole["results"]] == [[2, 70, 3], [1, 33, 2]]
    for each in whole["results"]:
        ms = each["backends"]["cpu"]["ms"]
        assert ms["back, rows"] == ms["back, tiles"] > 0
        assert ms[attention.TRAINED] == pytest.approx(ms["forward"] + ms["back, tiles"])
    out, err = capsys.readouterr()
    assert (tmp_path / "attention.md").read_text().strip() == out.strip()
    assert out.count("| CPU, µs | TFLOP/s |\n") == 2
    assert "2 × 70 tokens, 3 heads of 64, forward | back, rows | back, tiles: CPU " in err


def test_operations_of_the_visible_half_are_counted():
    forward = 2 * (2 * 128 * 128 * 64) / 2  # logits, and weights by values
    counted = Shape(3, 128, 5).flops
    assert counted["forward"] == 15 * forward
    assert counted["back, rows"] == counted["back, tiles"] == 15 * 2.5 * forward


def test_the_truth_may_be_computed_in_chunks(monkeypatch):
    given = Heads(*torch.randn(4, 3, 50, 64, dtype=torch.float64))
    whole = by_products(given, torch.float64)
    leaves = [x.clone().requires_grad_() for x in given[:3]]
    out = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True)
    expected = [out, *torch.autograd.grad(out, leaves, given.grad)]
    monkeypatch.setattr(attention_truth, "_LOGITS", 3 * 50 * 7)
    chunked = by_products(given, torch.float64)
    for name, exact in zip(("result", "queries", "keys", "values"), expected, strict=True):
        torch.testing.assert_close(whole[name], exact.detach())
        torch.testing.assert_close(chunked[name], exact.detach())


def test_heads_that_are_compared_are_spread_over_all():
    truth = Truth.of(Heads(*torch.randn(4, 4, 5, 3, 64)), 5)
    assert (truth.sequences * 3 + truth.heads).tolist() == [0, 3, 6, 8, 11]
    assert Truth.of(Heads(*torch.randn(4, 2, 5, 3, 64)), 16).heads.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_what_is_wrong_has_no_time(tmp_path, monkeypatch, which):
    def spoil(found, place):
        return tuple(x * 1.1 if at == place else x for at, x in enumerate(found))

    right, right_back = fused.attend, fused.attend_backward
    monkeypatch.setattr(fused, "attend", lambda *given: spoil(right(*given), which))
    monkeypatch.setattr(fused, "attend_backward", lambda *given: spoil(right_back(*given), which - 1))
    if which == 1:
        monkeypatch.setattr(fused, "attend", right)
    assert attention.main([f"--output={tmp_path}", "--device=cpu", "--shape=1x40x2"]) == 1
    found = json.loads((tmp_path / "attention.json").read_text())["results"][0]["backends"]["cpu"]
    what = ["result", "gradient of queries", "gradient of keys", "gradient of values"][which]
    assert list(found) == ["wrong"]
    assert found["wrong"].startswith(f"{what}: error by mean")
    assert f"* CPU wrong: {what}: error" in (tmp_path / "attention.md").read_text()


def test_what_is_refused_is_told_and_the_others_are_measured(monkeypatch):
    monkeypatch.setattr(hopper, "attention", lambda *_: (_ for _ in ()).throw(RuntimeError("not here\nnor there")))
    found = attention.measure_all(Shape(1, 8, 2), ["hopper", "cpu"], 0, 2, "cpu")
    assert found["hopper"] == {"refused": "not here"}
    assert found["cpu"]["ms"]["forward"] > 0


def test_ours_is_timed_in_tiles_and_compared_with_cudnns(monkeypatch):
    def back(grad, q, k, v, out, lse, scale):
        of_q, of_k, of_v = fused.attend_backward(grad, q, k, v, out, lse, scale, "cpu")
        return hopper.QueryGradient(of_q, tuple(q.shape), scale), of_k, of_v

    monkeypatch.setattr(hopper, "attention", lambda *given: fused.attend(*given, "cpu"))
    monkeypatch.setattr(hopper, "attention_backward", back)
    monkeypatch.setattr(hopper.QueryGradient, "rows", lambda self, dtype: self.tiles)
    found = attention.measure_all(Shape(1, 8, 2), ["hopper"], 0, 2, "cpu")["hopper"]
    assert found["ms"]["back, tiles"] != found["ms"]["back, rows"]
    fixed = {"ms": dict(zip((*attention.WAYS, attention.TRAINED), (1.0, 3.0, 2.0, 3.0), strict=True))}
    twice = {"ms": {way: 2 * ms for way, ms in fixed["ms"].items()}}
    lines = attention.table(Shape(1, 1000, 10), {"cudnn": twice, "hopper": fixed}, 10e12).splitlines()
    assert lines[2] == "| | cuDNN, µs | TFLOP/s | ours, µs | TFLOP/s | ours over cuDNN's |"
    assert lines[4] == "| forward | 2,000.0 | 0.64 (6%) | 1,000.0 | 1.28 (13%) | 2.00 |"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shape=20x1024"], "'20x1024', expected sequences x tokens x heads"),
        (["--shape=20x0x3"], "'20x0x3', expected numbers from 1 on"),
        (["--check_heads=0"], "'0', expected a number from 1 on"),
        (["--backend=hopper"], "backend hopper does not run on cpu; those that do: cpu"),
        (["--device=tpu"], "expected cuda, cuda:1 … or cpu"),
    ],
)
def test_mistakes_are_told(tmp_path, capsys, words, said):
    with pytest.raises(SystemExit):
        attention.main([f"--output={tmp_path}", "--device=cpu", *words])
    assert said in capsys.readouterr().err

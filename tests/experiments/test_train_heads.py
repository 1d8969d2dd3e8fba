import json
import re

import pytest
import torch

from experiments.train_speed import heads, heads_truth
from experiments.train_speed.heads_truth import Drawn, Shape, Truth
from lit_t6.bench.timing import time_calls

from ..ops.seeds import INTERPRETED


@pytest.fixture
def _once(monkeypatch):
    """What is timed is timed once; what stands in its result before is NaN, as on a GPU."""

    def timed(calls, device):
        calls[0]().fill_(float("nan"))
        return time_calls(calls, device, replays=1)

    monkeypatch.setattr(heads, "time_calls", timed)


@INTERPRETED
@pytest.mark.usefixtures("_once")
def test_a_table_is_written(tmp_path, capsys):
    words = [f"--output={tmp_path}", "--device=cpu", "--shape=2x3x5:3,2,1", "--shape=1x4x2:0,1,2"]
    assert heads.main(words) == 0
    whole = json.loads((tmp_path / "heads.json").read_text())
    assert isinstance(whole["settings"]["seed"], int)
    rate = max(whole["read_rates_gb_per_s"].values())
    assert [each["shape"] for each in whole["results"]] == [[2, 3, 5, [3, 2, 1]], [1, 4, 2, [0, 1, 2]]]
    for result in whole["results"]:
        assert list(result["ways"]) == list(heads.WAYS)
        for each in result["ways"].values():
            assert each["of_floor"] == pytest.approx(each["nbytes"] / rate / each["ms"] / 1e6)
    out, err = capsys.readouterr()
    assert (tmp_path / "heads.md").read_text().strip() == out.strip()
    assert re.search(r"2 × 3 tokens, 5 heads of 64, ranks \(3, 2, 1\): [\d.]+ µs \| [\d.]+ µs \| [\d.]+ µs\n", err)
    assert "2 × 3 tokens, 5 heads of 64, ranks (3, 2, 1):" in out
    assert "1 × 4 tokens, 2 heads of 64, KV only, ranks 1, 2:" in out


def test_what_is_read_and_written_is_counted():
    drawn = Drawn.of(shape := Shape(2, 128, 5, (3, 2, 1)), torch.bfloat16, torch.Generator())
    factors, angles = 2 * 128 * 6 * (5 + 64) * 2, sum(x.nbytes for x in drawn.rope)
    each, tiles = drawn.grads[0].nbytes, drawn.tiles.tiles.nbytes
    expected = (angles + 3 * each + factors, angles + 3 * each + 2 * factors, angles + tiles + 2 * each + 2 * factors)
    assert shape.nbytes(2) == dict(zip(heads.WAYS, expected, strict=True))


def test_dense_queries_are_read_and_written_forward_and_only_their_gradient_back():
    factors, each, angles = 2 * 128 * 3 * (5 + 64) * 2, 2 * 128 * 5 * 64 * 2, 128 * 64 * 4
    expected = angles + factors + 4 * each, angles + 2 * factors + 4 * each, angles + 2 * factors + 5 * each
    assert Shape(2, 128, 5, (0, 2, 1)).nbytes(2) == dict(zip(heads.WAYS, expected, strict=True))


@INTERPRETED
@pytest.mark.parametrize("ranks", [(3, 2, 1), (0, 2, 1)])
@pytest.mark.parametrize("way", heads.WAYS)
def test_a_wrong_token_is_found(way, ranks):
    shape = Shape(2, 3, 5, ranks)
    drawn = Drawn.of(shape, torch.float32, torch.Generator().manual_seed(0))
    truth = Truth(shape, drawn, 6)
    found = drawn.compute(way, shape)
    truth.check(way, found)
    found[-1][1, 2].flatten()[:5] *= 1.01
    with pytest.raises(AssertionError, match=f"{way}: "):
        truth.check(way, found)


def test_tokens_that_are_compared_are_spread_over_all():
    drawn = Drawn.of(shape := Shape(2, 5, 1, (1, 1, 1)), torch.float32, torch.Generator())
    assert Truth(shape, drawn, 4).tokens.tolist() == [0, 3, 6, 9]
    assert Truth(shape, drawn, 99).tokens.tolist() == list(range(10))


@INTERPRETED
@pytest.mark.usefixtures("_once")
@pytest.mark.parametrize("which", ["form_heads", "form_heads_backward"])
def test_what_is_wrong_only_as_it_is_timed_has_no_time(tmp_path, monkeypatch, which):
    right, calls = getattr(heads_truth, which), []

    def later_spoilt(*given, **settings):
        found = right(*given, **settings)
        calls.append(type(given[0][0]))
        if calls.count(calls[-1]) == 1:  # to be checked, before it is timed
            return found
        (found[0] if which == "form_heads" else found[0][0]).mul_(1.1)
        return found

    monkeypatch.setattr(heads_truth, which, later_spoilt)
    ways = heads.measure(Shape(1, 3, 2, (1, 1, 1)), torch.float32, 0, 3, "cpu", 1.0)
    wrong = ["forward"] if which == "form_heads" else ["back, rows", "back, tiles"]
    assert [way for way, each in ways.items() if "wrong" in each] == wrong


@INTERPRETED
@pytest.mark.usefixtures("_once")
def test_what_is_wrong_has_no_time(tmp_path, monkeypatch):
    right = heads_truth.form_heads_backward

    def spoilt(grads, pairs, rope, into, *settings):
        right(grads, pairs, rope, into, *settings)
        into[1][0].mul_(1.1)

    monkeypatch.setattr(heads_truth, "form_heads_backward", spoilt)
    assert heads.main([f"--output={tmp_path}", "--device=cpu", "--shape=1x3x2:1,1,1"]) == 1
    ways = json.loads((tmp_path / "heads.json").read_text())["results"][0]["ways"]
    assert "ms" in ways["forward"]
    assert list(ways["back, rows"]) == list(ways["back, tiles"]) == ["wrong"]
    assert "* wrong: back, tiles: a of keys: error by mean" in (tmp_path / "heads.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shape=20x1024x47"], "'20x1024x47', expected sequences x tokens x heads : ranks"),
        (["--shape=20x1024x47:6,2"], "'20x1024x47:6,2', expected sequences x tokens x heads : ranks"),
        (["--shape=20x0x3:1,1,1"], "'20x0x3:1,1,1', expected numbers from 1 on"),
        (["--shape=2x2x3:1,0,1"], "'2x2x3:1,0,1', expected numbers from 1 on; 0 for the rank of dense queries"),
        (["--check_tokens=0"], "'0', expected a number from 1 on"),
        (["--device=tpu"], "expected cuda, cuda:1 … or cpu"),
    ],
)
def test_mistakes_are_told(tmp_path, capsys, words, said):
    with pytest.raises(SystemExit):
        heads.main([f"--output={tmp_path}", "--device=cpu", *words])
    assert said in capsys.readouterr().err


def test_a_cpu_without_an_interpreter_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(heads, "no_gpu", lambda _: "no GPU: how to go on")
    with pytest.raises(SystemExit):
        heads.main([f"--output={tmp_path}", "--device=cpu"])
    assert "no GPU: how to go on" in capsys.readouterr().err

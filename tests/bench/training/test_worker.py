"""One case, in this process; `tests/bench/test_train.py` runs whole commands."""

import json
from dataclasses import replace

import pytest
import torch

from lit_t6.attention import LatentConfig, MFAConfig, MultiHeadConfig, TPAConfig
from lit_t6.bench.training import steps, worker
from lit_t6.bench.training.case import OURS, Case
from lit_t6.model import T6Config

MECHANISMS = {
    "TPA": TPAConfig(3, 16, 3, 2, 2),
    "TPA-KVonly": TPAConfig(3, 16, factorized="kv"),
    "MQA": MultiHeadConfig(3, 1, 16),
    "MHA": MultiHeadConfig(3, None, 16),
    "MLA": LatentConfig(2, 16, rope_dim=8),
    "MFA": MFAConfig(2, 16),
}


def case(attention="TPA", **changes):
    config = T6Config(50, 24, 32, 2, MECHANISMS[attention], multiple_of=1)
    known = {"steps": 2, "warmup": 1, "precision": "bf16-mixed", "compile": False, "seed": 0, "device": "cpu"}
    return Case(attention, OURS, config.to_dict(), 3, 24, **known | changes)


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other take long where others are at work."""
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize("attention", MECHANISMS)
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_every_mechanism_is_checked_and_timed(attention, precision):
    found = worker.measure(case(attention, precision=precision))
    assert found["status"] == "timed", found
    assert found["fastest_ms"] <= found["step_ms"] <= found["slowest_ms"]
    assert found["tokens_per_sec"] == pytest.approx(3 * 24 / found["step_ms"] * 1000)
    assert found["peak_gib"] > 0.1
    assert found["first_step_seconds"] > 0
    assert found["mfu"] is None
    assert found["loss"] == pytest.approx(found["exact_loss"], rel=1e-2 if precision == "bf16-mixed" else 1e-5)
    assert found["gradient_error"] < (0.05 if precision == "bf16-mixed" else 1e-5)


def test_a_step_that_is_a_little_wrong_has_no_speed(monkeypatch):
    def wrong(self, tokens, targets):
        loss = honest(self, tokens, targets)
        self.model.blocks[1].feed_forward.out.weight.grad[5] *= 1.5
        return loss

    honest = steps.OurStep.forward_backward
    monkeypatch.setattr(steps.OurStep, "forward_backward", wrong)
    found = worker.measure(case())
    assert found["status"] == "wrong"
    assert found["why"].startswith("gradient of blocks.1.feed_forward.out.weight: error by ")
    assert "tokens_per_sec" not in found


def test_a_loss_that_runs_away_has_no_speed(monkeypatch):
    def blow_up(self):
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.weights[0].fill_(float("nan"))

    monkeypatch.setattr(steps.OurStep, "update", blow_up)
    found = worker.measure(case())
    assert (found["status"], found["why"]) == ("wrong", "the loss is nan after 4 steps")


def test_all_weights_take_part():
    step = steps.make_step(case("MLA"))
    tokens, targets = torch.randint(50, (2, 3, 24))
    before = {name: weight.clone() for name, weight in step.model.named_parameters()}
    step.forward_backward(tokens, targets)
    assert all(weight.grad.any() for weight in step.model.parameters())
    step.update()
    assert all(weight.grad is None for weight in step.model.parameters())
    assert all(not torch.equal(weight, before[name]) for name, weight in step.model.named_parameters())
    again = steps.make_step(case("MLA"))
    assert all(torch.equal(weight, before[name]) for name, weight in again.model.named_parameters())


@pytest.mark.parametrize(
    ("error", "status"), [(torch.OutOfMemoryError("9 GiB\nmore"), "no memory"), (KeyError("a"), "failed")]
)
def test_errors_are_entries(error, status, tmp_path, monkeypatch, capsys):
    def fail(case):
        raise error

    monkeypatch.setattr(worker, "measure", fail)
    (tmp_path / "case.json").write_text(json.dumps(case().to_dict()))
    assert worker.main([str(tmp_path / "case.json"), str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["status"] == status
    assert found["why"].startswith(type(error).__name__)
    assert "\n" not in found["why"]
    assert "Traceback" in capsys.readouterr().err


def test_a_case_survives_json():
    whole = case(upstream={"file": "T6.py", "arch": "T6", "settings": {}})
    assert Case.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
    assert replace(whole, seed=1).key == whole.key


def test_a_step_that_recomputes_is_measured_alike():
    none, full = (worker.measure(case(recompute=recompute)) for recompute in ("none", "full"))
    assert full["status"] == "timed", full
    assert full["gradient_error"] == none["gradient_error"]


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["TPA", "MHA"])
def test_a_compiled_step_on_a_gpu(attention):
    found = worker.measure(case(attention, device="cuda", compile=True))
    assert found["status"] == "timed", found
    assert found["graphs"] > 0
    assert (found["graph_breaks"], found["late_graphs"]) == (0, 0)
    assert 0 < found["peak_gib"] < 1

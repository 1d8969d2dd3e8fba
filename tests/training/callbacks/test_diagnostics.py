from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.ops import TPAFactors
from lit_t6.training import FactorDiagnostics
from lit_t6.training.callbacks.diagnostics import describe_factors, draw_factors

from ..runs import MHA, SMALL, fit


@pytest.fixture(scope="module")
def events(tmp_path_factory, prepared):
    folder = tmp_path_factory.mktemp("diagnosed")
    fit(folder, prepared, SMALL)
    return EventAccumulator(str(folder / "run")).Reload()


def test_every_layer_and_the_mean_are_logged_at_every_validation(events):
    for name in ("rms_a_q", "rms_b_v", "effective_rank_k", "effective_rank_v"):
        by_layer = [[e.value for e in events.Scalars(f"factors/{name}/layer_{n:02}")] for n in range(2)]
        mean = [e.value for e in events.Scalars(f"factors/{name}")]
        assert mean == pytest.approx([sum(values) / 2 for values in zip(*by_layer, strict=True)])
        assert [e.step for e in events.Scalars(f"factors/{name}")] == [4, 6]  # as val/loss
    ranks = [e.value for e in events.Scalars("factors/effective_rank_k")]
    assert all(1 <= rank <= SMALL.attention.rank_k for rank in ranks)
    assert [image.step for image in events.Images("factors/figure")] == [4, 6]


def test_pictures_become_rarer(tmp_path, prepared):
    fit(tmp_path, prepared, SMALL, max_steps=14, val_check_interval=2)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [e.step for e in events.Scalars("factors/rms_a_q")] == [1, 3, 5, 7, 9, 11, 13]
    assert [image.step for image in events.Images("factors/figure")] == [1, 3, 7, 13]  # 1st, 2nd, 4th and last


def test_numbers_are_those_of_the_factors():
    a, b = torch.full((5, 2, 3), 2.0), torch.randn(5, 2, 4)
    b[:, 1] = b[:, 0]
    described = describe_factors(TPAFactors(a, b, a, b, a, 3 * b))
    assert described["rms_a_q"] == 2.0
    assert described["rms_b_v"] == pytest.approx(3 * described["rms_b_k"])
    assert described["effective_rank_k"] == pytest.approx(1)
    assert draw_factors([described]).axes[0].get_xlabel() == "layer"


@pytest.mark.parametrize(("factorized", "left"), [("kv", "kv"), ("q", "q")])
def test_dense_parts_are_left_out(tmp_path, prepared, factorized, left):
    attention = replace(SMALL.attention, factorized=factorized, rope_on="heads")
    fit(tmp_path, prepared, replace(SMALL, attention=attention), max_steps=1)
    tags = EventAccumulator(str(tmp_path / "run")).Reload().Tags()
    logged = {tag.split("/")[1] for tag in tags["scalars"] if tag.startswith("factors/")}
    assert logged == {f"rms_{ab}_{letter}" for ab in "ab" for letter in left} | {
        f"effective_rank_{letter}" for letter in left if letter != "q"
    }
    assert "factors/figure" in tags["images"]


def test_other_mechanisms_and_zero_log_nothing(tmp_path, prepared):
    fit(tmp_path / "mha", prepared, MHA, max_steps=1)
    fit(tmp_path / "off", prepared, SMALL, max_steps=1, callbacks=[FactorDiagnostics(0)])
    for name in ("mha", "off"):
        tags = EventAccumulator(str(tmp_path / name / "run")).Reload().Tags()
        assert not [tag for tag in tags["scalars"] + tags["images"] if tag.startswith("factors")]


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="expected every_n_validations >= 0 and num_tokens >= 1, got -1 and 64"):
        FactorDiagnostics(-1)

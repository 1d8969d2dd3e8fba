"""Gradients that overflow in float16, whose steps the scaler skips."""

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.training import Guards

from .guarded import Notes, lines, run, same


def float16(scale=2.0**16):
    """Precision 16-mixed as Lightning has it on GPUs; on CPUs it takes bfloat16 instead, unless it is given this."""
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))


def test_an_overflow_of_float16_is_noted_and_skipped_with_its_schedule(tmp_path, prepared):
    notes, precision = Notes(), float16(1024.0)
    _, trainer = run(tmp_path, prepared, Guards(), {3, 4, 6}, "gradient", notes=notes, plugins=[precision])
    assert trainer.global_step == 8
    for step in range(2, 9):
        assert same(notes.after[step], notes.after[step - 1]) == (step in {3, 4, 6}), step
    assert [(line["step"], line["what"]) for line in lines(tmp_path)] == [(n, "overflow") for n in (3, 4, 6)]
    assert [line["scale"] for line in lines(tmp_path)] == [512.0, 256.0, 128.0]
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("guards/overflows")] == [(2, 1.0), (3, 2.0), (5, 3.0)]


def test_a_scale_that_falls_without_end_stops(tmp_path, prepared):
    guards, precision = Guards("skip", max_overflows=3), float16(16.0)
    told = r"step 7: loss [\d.]+, infinite gradient, on samples 24 … 27; 4 steps in a row were not taken"
    with pytest.raises(ValueError, match=told) as e:
        run(tmp_path, prepared, guards, {2, 4, 5, 6, 7}, "gradient", plugins=[precision])
    assert "(guards.max_overflows=3), the scale of the loss fell to 0.5. " in str(e.value)
    assert str(e.value).endswith("or --trainer.precision bf16-mixed.")
    assert [line["what"] for line in lines(tmp_path)] == [*["overflow"] * 4, "stopped"]


def test_a_loss_that_is_not_finite_in_float16_is_no_overflow(tmp_path, prepared):
    with pytest.raises(ValueError, match="step 3: loss nan, gradient norm nan"):
        run(tmp_path, prepared, Guards(), {3}, plugins=[float16(1024.0)])


@pytest.mark.gpu
def test_an_overflow_on_a_gpu(tmp_path, prepared):
    notes, options = Notes(), {"accelerator": "gpu", "devices": 1, "precision": "16-mixed"}
    run(tmp_path, prepared, Guards(), {3, 6}, "gradient", notes=notes, **options)
    assert [(line["step"], line["what"]) for line in lines(tmp_path) if line["step"] in (3, 6)] == [
        (3, "overflow"),
        (6, "overflow"),
    ]
    assert all(same(notes.after[step], notes.after[step - 1]) for step in (3, 6))

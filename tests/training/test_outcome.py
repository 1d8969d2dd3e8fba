"""What is said of validations, while a training runs and at its end."""

import re
from types import SimpleNamespace

import pytest
import torch

from lit_t6.cli import main
from lit_t6.training.metrics import LanguageModelMetrics


@pytest.fixture
def losses(monkeypatch):
    """Sets the losses of the validations to come; the last one stays."""

    def give(*values):
        left = [values[0], *values]  # the first is of the sanity check

        def compute(self):
            loss = torch.tensor(left.pop(0) if len(left) > 1 else left[0], dtype=torch.float64)
            return {"loss": loss, "perplexity": loss.exp(), "bits_per_byte": loss / 2}

        monkeypatch.setattr(LanguageModelMetrics, "compute", compute)

    return give


@pytest.fixture
def words(options):
    quiet = ["--samples.max_new_tokens=0", "--diagnostics.every_n_validations=0", "--data.eval_windows=2"]
    shown = [word for word in options if "enable_progress_bar" not in word]
    return ["fit", *shown, *quiet, "--trainer.val_check_interval=1"]


def test_a_last_validation_that_is_not_finite(words, losses, capsys):
    losses(4.0, 3.0, float("nan"))
    assert main(words) == 0
    out, err = capsys.readouterr()
    figures, says, best, following = out.splitlines()[-4:]
    assert figures == "val/loss nan, nan bits per byte"
    assert says.startswith("The last validation was not finite: ")
    assert re.fullmatch(r"Best val/loss 3\.0000: .*/step=2\.ckpt", best)
    assert re.fullmatch(r"Next: python cli.py generate --ckpt_path .*/step=2.ckpt --prompt 'It was'", following)
    (warning,) = (line for line in err.splitlines() if line.startswith("warning: validation"))
    assert "validation at step 3: val/loss is nan, not a finite number" in warning
    assert "smaller --model.optimizer.lr, more warmup_steps" in warning


@pytest.mark.parametrize(("value", "more"), [("nan", []), ("inf", []), ("nan", ["--checkpoint.save_top_k=-1"])])
def test_nothing_that_is_not_finite_is_the_best(words, losses, capsys, tmp_path, value, more):
    losses(float(value))
    assert main([*words, *more]) == 0
    out, err = capsys.readouterr()
    assert "Best" not in out
    assert "Next:" not in out
    assert err.count(f"val/loss is {value}, not a finite number") == 3
    names = {path.name for path in tmp_path.rglob("*.ckpt")}
    assert names == {"last.ckpt", *(f"step={step}.ckpt" for step in (1, 2, 3) if more)}


def test_a_finite_figure_is_the_best_after_some_that_are_not(words, losses, capsys):
    losses(float("nan"), 5.0, 6.0)
    assert main([*words, "--checkpoint.save_top_k=2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^Best val/loss 5\.0000: .*/step=2\.ckpt$", out, re.M)
    assert re.search(r"^Next: .* --ckpt_path .*/last\.ckpt", out, re.M)
    assert "not finite" not in out


@pytest.mark.parametrize(
    ("precision", "remedy"),
    [
        ("16-true", ", or --trainer.precision bf16-mixed instead of 16-true."),
        ("bf16-mixed", ", or --trainer.precision 32-true instead of bf16-mixed."),
        ("32-true", "more warmup_steps."),
    ],
)
def test_a_wider_precision_is_named_where_there_is_one(precision, remedy, capsys):
    from lit_t6.training.callbacks.validation_figures import warn_if_not_finite

    figures = {"val/loss": torch.tensor(torch.inf)}
    trainer = SimpleNamespace(callback_metrics=figures, is_global_zero=True, global_step=1200, precision=precision)
    warn_if_not_finite(trainer)
    error = capsys.readouterr().err
    assert error.startswith("warning: validation at step 1,200: val/loss is inf")
    assert error.strip().endswith(remedy)


def test_every_validation_has_a_line_in_a_log(words, losses, capsys):
    losses(5.9766, 5.25, 5.125)
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "bits per byte" in line] == [
        "validation at step 1 of 3: val/loss 5.9766, 2.9883 bits per byte",
        "validation at step 2 of 3: val/loss 5.2500, 2.6250 bits per byte",
        "val/loss 5.1250, 2.5625 bits per byte",
    ]


def test_callbacks_of_ones_own_leave_the_progress_bar_as_it_is(words, losses, capsys):
    losses(5.9766, 5.25, 5.125)
    assert main([*words, "--trainer.callbacks+=LearningRateMonitor"]) == 0
    out = capsys.readouterr().out
    assert "validation at step 2 of 3: val/loss 5.2500" in out
    assert "Epoch" not in out
    assert main([*words, "--trainer.callbacks+=RichProgressBar"]) == 0
    assert "Epoch" in capsys.readouterr().out


def test_a_validation_that_stops_early_is_told_once(words, losses, capsys):
    losses(5.0, 6.0, 7.0)
    stopping = ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    assert main([*words, *stopping, "--trainer.callbacks.patience=1", "--trainer.max_steps=9"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "val/loss 6.0000" in line]
    assert len(told) == 1


def test_no_lines_where_progress_is_not_to_be_shown(words, capsys):
    assert main([*words, "--trainer.enable_progress_bar=false"]) == 0
    out = capsys.readouterr().out
    assert "validation at" not in out
    assert len(re.findall("bits per byte", out)) == 1

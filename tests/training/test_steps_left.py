"""A training that has no step to take is refused before it has a folder."""

from pathlib import Path

import pytest
import torch

from lit_t6.cli import main, run

QUIET = ["--samples.max_new_tokens=0", "--diagnostics.every_n_validations=0", "--data.eval_windows=2"]
EPOCHS = ["--trainer.max_steps=-1", "--trainer.limit_train_batches=2", "--trainer.val_check_interval=2", *QUIET]


def fit(options, *more):
    finished = run(["fit", *options, *more])
    return finished, f"{finished.trainer.log_dir}/checkpoints/last.ckpt"


def refused(words, capsys, tmp_path):
    """The error of a command that leaves no folder."""
    before = {*tmp_path.rglob("*")}
    assert main(["fit", *words]) == 1
    assert {*tmp_path.rglob("*")} == before
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_checkpoint_at_the_last_step_or_past_it(options, tmp_path, capsys):
    _, checkpoint = fit(options, *QUIET)
    for steps in (3, 2):
        error = refused([*options, f"--ckpt_path={checkpoint}", f"--trainer.max_steps={steps}"], capsys, tmp_path)
        assert f"error: {checkpoint}: is at the end of step 3, and trainer.max_steps={steps}: nothing is left" in error
        assert "To go on, raise the limit, as with --trainer.max_steps 6." in error
    assert fit(options, *QUIET, f"--ckpt_path={checkpoint}", "--trainer.max_steps=6")[0].trainer.global_step == 6
    assert fit(options, *QUIET, f"--ckpt_path={checkpoint}", "--convert=true")[0].trainer.global_step == 3  # afresh


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_checkpoint_at_the_last_epoch_or_past_it(options, tmp_path, capsys):
    words = [*options, *EPOCHS]
    _, checkpoint = fit(words, "--trainer.max_epochs=2")
    for epochs in (2, 1):
        error = refused([*words, f"--ckpt_path={checkpoint}", f"--trainer.max_epochs={epochs}"], capsys, tmp_path)
        assert f"is at the end of epoch 2, and trainer.max_epochs={epochs}: nothing is left to train." in error
    assert fit(words, f"--ckpt_path={checkpoint}", "--trainer.max_epochs=3")[0].trainer.global_step == 6


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_validation_that_was_due_at_the_end_is_made_up_for(options):
    words = [*options, *QUIET, "--checkpoint.monitor=null", "--checkpoint.every_n_train_steps=1"]
    _, checkpoint = fit(words)
    content = torch.load(checkpoint, weights_only=True)
    assert content["callbacks"]["ExactResume"]["validation_due"]
    finished, _ = fit(words, f"--ckpt_path={checkpoint}")
    assert finished.trainer.global_step == 3
    assert "val/loss" in finished.trainer.callback_metrics
    assert Path(finished.trainer.log_dir).name == "version_1"


@pytest.mark.parametrize("limit", ["max_steps=0", "max_epochs=0", "limit_train_batches=0", "limit_train_batches=0.0"])
def test_limits_of_zero(options, tmp_path, capsys, limit):
    error = refused([*options, f"--trainer.{limit}"], capsys, tmp_path)
    assert f"error: trainer.{limit.removesuffix('.0')}" in error
    assert "nothing would be trained; give a number above 0" in error


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_time_that_is_over_is_told_and_no_checkpoint_of_another_run_is_offered(options, capsys):
    words = [*options, *QUIET, "--trainer.max_steps=20000", "--trainer.max_time=00:00:00:01"]
    _, checkpoint = fit(words)
    capsys.readouterr()
    fit(words, f"--ckpt_path={checkpoint}")
    out = capsys.readouterr().out
    assert f"No step was taken: {checkpoint} is at step " in out
    assert "a limit that it had reached, such as trainer.max_time, ended the training there" in out
    assert "Next:" not in out

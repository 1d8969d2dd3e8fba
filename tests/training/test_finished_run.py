"""How a finished run can be gone on with, as the same command says before it begins a new one."""

from pathlib import Path

import pytest

from lit_t6.cli import run

QUIET = ["--samples.max_new_tokens=0", "--diagnostics.every_n_validations=0", "--data.eval_windows=2"]
EPOCHS = ["--trainer.limit_train_batches=2", "--trainer.val_check_interval=2"]
ADVICE = " is a finished run of the same settings; this begins a new one."

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def fit(options, *more):
    return run(["fit", *options, *QUIET, *more]).trainer


def advice(options, capsys, *more):
    """Words that the same command is told to add, once the run is finished; the run's folder."""
    folder = fit(options, *more).log_dir
    capsys.readouterr()
    fit(options, *more)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "finished run" in line)
    assert line.startswith(f"{folder}{ADVICE} To go on with it instead, add --ckpt_path {folder}/checkpoints/")
    words, _, schedule = line.partition(" instead, add ")[2].partition(". ")
    assert bool(schedule.startswith("The learning rate then rises")) == ("--trainer.max_" in words)
    return words.removesuffix("."), Path(folder)


@pytest.mark.parametrize(
    ("limits", "expected", "steps"),
    [
        ({"max_steps": 100, "max_epochs": 1}, "--trainer.max_epochs 2", 4),
        ({"max_steps": 2, "max_epochs": 5}, "--trainer.max_steps 4", 4),
        ({"max_steps": 2, "max_epochs": 1}, "--trainer.max_steps 4 --trainer.max_epochs 2", 4),
        ({"max_steps": -1, "max_epochs": 2}, "--trainer.max_epochs 4", 8),
    ],
)
def test_the_limit_that_ended_it_is_raised(options, capsys, limits, expected, steps):
    words = [*EPOCHS, *(f"--trainer.{name}={limit}" for name, limit in limits.items())]
    said, folder = advice(options, capsys, *words)
    assert said == f"--ckpt_path {folder}/checkpoints/last.ckpt {expected}"
    assert fit(options, *words, *said.split()).global_step == steps


def test_where_no_limit_of_steps_or_epochs_ended_it_none_is_named(options, capsys):
    endless = ["--trainer.max_steps=-1", "--trainer.max_epochs=-1", "--model.optimizer.decay_steps=100", *EPOCHS]
    stops = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    said, folder = advice(options, capsys, *endless, *stops, "--trainer.callbacks.min_delta=100")
    assert said == f"--ckpt_path {folder}/checkpoints/last.ckpt and a higher limit"


def flip(path):
    """Damage a file as a bad disk does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_not_recommended(options, capsys):
    folder = Path(fit(options).log_dir)
    last = folder / "checkpoints" / "last.ckpt"
    (other,) = {*folder.glob("checkpoints/*.ckpt")} - {last}
    flip(last)
    newer = Path(fit(options).log_dir)
    assert f"{folder}{ADVICE} To go on with it instead, add --ckpt_path {other} --tr" in capsys.readouterr().out
    (newer / "config.yaml").unlink()
    flip(other)
    fit(options)
    assert f"{folder}{ADVICE}\n" in capsys.readouterr().out

import sys
from pathlib import Path

import pytest
import yaml

from lit_t6.cli import run
from lit_t6.sweeps import cells_of, command, fit_command, load_study
from lit_t6.sweeps.command import front_door

from .studies import RANK, RANK_QUICK, study


def test_the_whole_command(tmp_path):
    read = load_study([RANK, RANK_QUICK])
    words = fit_command(read, cells_of(read)[1], 7, tmp_path / "6,1,1" / "seed-7")
    assert words[:3] == [sys.executable, str(Path("cli.py").resolve()), "fit"]
    assert "--model.attention.num_heads=17" in words
    assert {"--seed_everything=7", "--data.seed=7", "--trainer.devices=1"} <= set(words)


def test_the_order_of_the_data_can_be_held(tmp_path):
    read = study(tmp_path, "cells: {a: {data.seed: 3}}\n")
    words = fit_command(read, cells_of(read)[0], 7, tmp_path)
    assert [word for word in words if word.startswith("--data.seed")] == ["--data.seed=3"]


def test_several_gpus(tmp_path):
    read = study(tmp_path, "gpus_per_trial: 2\ncells: {a: {}}\n")
    assert "--trainer.devices=2" in fit_command(read, cells_of(read)[0], 0, tmp_path)


def test_an_installed_package_has_no_file_beside_it(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "__file__", str(tmp_path / "lit_t6" / "sweeps" / "command.py"))
    assert front_door() == [sys.executable, "-m", "lit_t6"]
    (tmp_path / "cli.py").write_text("another program's")
    assert front_door() == [sys.executable, "-m", "lit_t6"]


@pytest.mark.parametrize("name", ["6", "null", "2,1,1", "a b"])
def test_a_trial_is_logged_into_its_folder(prepared, tmp_path, name):
    read = study(tmp_path, f'cells: {{"{name}": {{}}}}\n', {"options.trainer.max_steps": 1})
    folder = tmp_path / name / "seed-0"
    words = fit_command(read, cells_of(read)[0], 0, folder)
    small = ["--model.vocab_size=400", "--model.max_seq_len=32", "--trainer.limit_val_batches=0"]
    run([*words[2:], f"--data.path={prepared}", *small, "--trainer.enable_progress_bar=false"])
    assert (folder / "finished").exists()
    assert list((folder / "checkpoints").glob("*.ckpt"))
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed_everything"] == 0

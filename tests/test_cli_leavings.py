"""What a command leaves behind that was a try, had no logger, or was refused; and what it says of it."""

import shutil
from pathlib import Path

import pytest

from lit_t6.cli import main, run
from lit_t6.training.callbacks import start_panel


def test_a_fast_run_saves_nothing_and_offers_nothing(options, tmp_path, monkeypatch, capsys):
    words = [*options, "--config", str(Path("configs/quickstart.yaml").resolve())]
    monkeypatch.chdir(tmp_path)
    words = [word for word in words if word != "--config=configs/quickstart.yaml"]
    assert main(["fit", *words, "--trainer.fast_dev_run=true"]) == 0
    assert not list(tmp_path.rglob("*"))
    said = capsys.readouterr().out
    assert "none, and nothing is saved" in said
    assert "bits per byte." in said
    assert "Next:" not in said


def test_without_a_logger_each_run_has_a_folder_of_its_own(options, tmp_path, monkeypatch, capsys):
    config = str(Path("configs/quickstart.yaml").resolve())
    words = ["--config", config, *[w for w in options if not w.startswith(("--config", "--trainer.logger"))]]
    monkeypatch.chdir(tmp_path)
    for version in (0, 1):
        run(["fit", *words, "--trainer.logger=false"])
        folder = Path(f"logs/without_logger/version_{version}/checkpoints")
        assert (folder / "last.ckpt").is_file()
        assert [path.name for path in tmp_path.iterdir()] == ["logs"]
        said = capsys.readouterr().out
        assert f"checkpoints in {folder}" in said.replace("\n", "")
        assert f"\nNext: python cli.py generate --ckpt_path {folder / 'last.ckpt'} --prompt" in said


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_shard_that_is_gone_is_told_before_there_is_a_folder(split, prepared, options, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    for shard in data.glob(f"{split}_*.bin"):
        shard.unlink()
    assert main(["fit", *options, f"--data.path={data}"]) == 1
    assert f"{split}_00000.bin: no such shard. Run `python cli.py prepare` again" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_large_model_on_a_cpu_is_remarked(options, monkeypatch, capsys):
    monkeypatch.setattr(start_panel, "SLOW_ON_A_CPU", 10_000)
    run(["fit", *options, "--trainer.accelerator=cpu"])
    assert "parameters on a CPU: a step takes seconds or minutes. For a first look take" in capsys.readouterr().err
    monkeypatch.undo()
    run(["fit", *options, "--trainer.accelerator=cpu", "--trainer.max_steps=4"])
    assert "on a CPU: a step" not in capsys.readouterr().err

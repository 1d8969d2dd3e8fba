"""Where a training writes, however its folders are typed."""

from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_t6.cli import run
from lit_t6.training.places import expand, folder_of

from .runs import fit, make_trainer

QUIET = ["--samples.max_new_tokens=0", "--diagnostics.every_n_validations=0"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home for `~`, a variable of the environment, and a working directory of its own that stays empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNS", str(tmp_path / "home" / "runs"))
    return tmp_path / "home"


def test_home_and_variables_are_read_and_addresses_stay(home):
    assert expand("~/a") == f"{home}/a"
    assert expand(Path("$RUNS/a")) == f"{home}/runs/a"
    assert expand("s3://bucket//a") == "s3://bucket//a"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("save_dir", "dirpath"), [("~/runs", None), ("$RUNS", None), ("~/runs", "~/best"), ("$RUNS", "$RUNS/../best")]
)
def test_folders_in_yaml_with_home_and_variables(options, home, tmp_path, monkeypatch, save_dir, dirpath):
    (tmp_path / "typed.yaml").write_text(
        f"trainer: {{logger: {{init_args: {{save_dir: {save_dir}, name: $NAME}}}}}}\n"
        f"checkpoint: {{dirpath: {dirpath or 'null'}}}\n"
    )
    monkeypatch.setenv("NAME", "named")
    words = [*options[:-1], f"--config={tmp_path / 'typed.yaml'}", "--resume.every_n_minutes=0", *QUIET]
    (tmp_path / "cwd" / "configs").mkdir(parents=True)
    (tmp_path / "cwd" / "configs" / "quickstart.yaml").symlink_to(Path("configs/quickstart.yaml").resolve())
    monkeypatch.chdir(tmp_path / "cwd")
    first = run(["fit", *words]).trainer
    folder = home / "runs" / "named" / "version_0"
    saved = home / "best" if dirpath else folder / "checkpoints"
    assert files(saved) == {"step=3.ckpt", "last.ckpt"}
    assert first.log_dir == str(folder)
    (folder / "finished").unlink()
    assert run(["fit", *words]).trainer.log_dir == str(folder)  # it finds its checkpoints
    second = run(["fit", *words, "--data.seed=1"] + ([f"--checkpoint.dirpath={dirpath}2"] if dirpath else [])).trainer
    assert second.log_dir == str(folder.with_name("version_1"))
    assert files(tmp_path / "cwd") == {"configs/quickstart.yaml"}  # none in a folder that is called ~


@pytest.fixture
def elsewhere(options, tmp_path, monkeypatch):
    """A working directory of its own, and the words of a command there."""
    here = Path.cwd()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    words = [word.replace("configs/", f"{here}/configs/") for word in options if "save_dir" not in word]
    return ["fit", *words, *QUIET]


@pytest.mark.parametrize("more", [[], ["--trainer.logger=false"]])
def test_a_rehearsal_leaves_nothing(elsewhere, tmp_path, capsys, more):
    trainer = run([*elsewhere, "--trainer.fast_dev_run=true", *more]).trainer
    assert trainer.global_step == 1
    assert not list((tmp_path / "cwd").rglob("*"))
    out = capsys.readouterr().out
    assert "ckpt" not in out
    assert "fast_dev_run keeps nothing" in out


def test_without_a_logger_checkpoints_have_a_folder_that_is_told(elsewhere, tmp_path, capsys):
    for version in range(2):
        run([*elsewhere, "--trainer.logger=false"])
        folder = f"logs/no_logger/version_{version}/checkpoints"
        assert f"checkpoints in {folder}" in "".join(capsys.readouterr().out.replace("│", "").split("\n"))
    runs = {
        f"logs/no_logger/version_{version}/checkpoints/{name}.ckpt"
        for version in range(2)
        for name in ("step=3", "last")
    }
    assert files(tmp_path / "cwd") == runs


def test_lightnings_own_saver_follows_the_logger(home, prepared):
    logger = TensorBoardLogger("$RUNS", "", "run", default_hp_metric=False)
    _, trainer = fit(home, prepared, max_steps=1, logger=logger, callbacks=[ModelCheckpoint(every_n_train_steps=1)])
    assert Path(trainer.checkpoint_callback.best_model_path).parent == home / "runs" / "run" / "checkpoints"


class Nameless(CSVLogger):
    """As loggers of services are while they are offline."""

    name = version = None


def test_no_folder_is_named_none(tmp_path):
    trainer = make_trainer(tmp_path, logger=Nameless(tmp_path / "logs"))
    assert folder_of(trainer) == tmp_path / "logs"
    assert folder_of(L.Trainer(logger=CSVLogger(tmp_path, "a", 3), accelerator="cpu")) == tmp_path / "a" / "version_3"

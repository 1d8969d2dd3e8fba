"""What a training that was refused leaves behind."""

import os
import shutil
from pathlib import Path

import pytest

from lit_t6.cli import main, run

NAMED = "--trainer.logger.init_args.version=mine"


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "logs"


@pytest.fixture
def words(options, logs):
    return [*options, f"--trainer.logger.init_args.save_dir={logs}", "--data.eval_windows=2"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.global_batch_size=24"], "data.global_batch_size=24 is not a multiple"),
        (
            ["--trainer.max_steps=-1", "--trainer.max_epochs=-1"],
            "the learning-rate schedule does not know where to end",
        ),
        (["--trainer.callbacks+=tests.training.endings.Fails", "--trainer.callbacks.step=1"], "rank 0 fails"),
    ],
)
def test_no_folder_is_left(words, logs, capsys, more, message):
    more = [*more, "--trainer.callbacks.ranks=[0]"] if "Fails" in more[0] else more
    assert main(["fit", *words, *more]) == 1
    assert message in capsys.readouterr().err
    assert not logs.exists()


def test_no_folder_is_left_for_a_checkpoint_of_another_model(words, logs, tmp_path, capsys):
    first = run(["fit", *words]).trainer.log_dir
    checkpoint = f"{first}/checkpoints/last.ckpt"
    assert main(["fit", *words, "--trainer.max_steps=6", "--ckpt_path", checkpoint, "--model.num_layers=2"]) == 1
    assert "model.num_layers is 1 there, 2 here" in capsys.readouterr().err
    assert [path.name for path in logs.iterdir()] == ["quickstart"]
    assert [str(path) for path in (logs / "quickstart").iterdir()] == [first]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_missing_shard_is_found_before_anything_is_made(words, prepared, logs, tmp_path, capsys, split):
    shutil.copytree(prepared, tmp_path / "data")
    (shard,) = (tmp_path / "data").glob(f"{split}_*.bin")
    shard.unlink()
    assert main(["fit", *words, f"--data.path={tmp_path / 'data'}"]) == 1
    output = capsys.readouterr()
    assert f"error: {shard}: no such shard. Run `python cli.py prepare` again" in output.err
    assert "parameters" not in output.out  # the panel
    assert not logs.exists()


def test_the_validation_split_is_not_needed_where_nothing_is_validated(words, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    for shard in (tmp_path / "data").glob("validation_*.bin"):
        shard.unlink()
    more = [f"--data.path={tmp_path / 'data'}", "--trainer.limit_val_batches=0", "--checkpoint.monitor=null"]
    assert run(["fit", *words, *more, "--samples.max_new_tokens=0"]).trainer.global_step == 3


def test_a_folder_stays_that_was_there_before(words, logs):
    (logs / "quickstart" / "mine").mkdir(parents=True)
    assert main(["fit", *words, NAMED, "--data.global_batch_size=24"]) == 1
    assert (logs / "quickstart" / "mine").is_dir()


def test_a_folder_stays_that_holds_more(words, logs, monkeypatch):
    from lit_t6 import LitT6

    def refuse(self, checkpoint):
        Path(self.trainer.log_dir, "notes.txt").write_text("mine")
        raise ValueError("refused")

    checkpoint = run(["fit", *words]).trainer.log_dir + "/checkpoints/last.ckpt"
    monkeypatch.setattr(LitT6, "on_load_checkpoint", refuse)
    assert main(["fit", *words, NAMED, "--trainer.max_steps=6", "--ckpt_path", checkpoint]) == 1
    assert {"notes.txt", "config.yaml"} <= set(os.listdir(logs / "quickstart" / "mine"))


def test_a_run_that_fails_later_stays(words, logs):
    more = ["--trainer.callbacks+=tests.training.endings.Fails", "--trainer.callbacks.step=3"]
    assert main(["fit", *words, NAMED, *more, "--trainer.callbacks.ranks=[0]"]) == 1
    assert (logs / "quickstart" / "mine" / "config.yaml").exists()


def test_the_full_size_default_on_a_cpu_is_told(prepared, logs, capsys):
    """Ended afterwards, as nobody waits for its steps here."""
    words = [f"--data.path={prepared}", "--model.vocab_size=400", "--model.attention.num_heads=2"]
    words += ["--trainer.accelerator=cpu", "--trainer.max_steps=1", f"--trainer.logger.init_args.save_dir={logs}"]
    assert main(["fit", *words, "--trainer.callbacks+=tests.training.endings.FailsBeforeTheFirstStep"]) == 1
    advice, error = capsys.readouterr().err.splitlines()[-2:]
    assert advice.startswith("warning: 64,")
    assert "parameters (12 layers, width 768) on a CPU: this is the full-size default" in advice
    assert advice.endswith("For a first run use --config configs/quickstart.yaml.")
    assert error.startswith("error: not a single step")


def test_a_small_model_on_a_cpu_needs_no_advice(words, capsys):
    assert main(["fit", *words, "--data.global_batch_size=24"]) == 1
    assert "full-size" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.seq_len=64", "data.seq_len=64 is longer than what the model is for, model.max_seq_len=32; make it"),
        ("--trainer.val_check_interval=0", "trainer.val_check_interval=0: expected a number of steps from 1, a share"),
    ],
)
def test_what_would_come_out_wrong_is_refused_before_there_is_a_folder(words, logs, capsys, option, message):
    assert main(["fit", *words, option]) == 1
    assert message in capsys.readouterr().err
    assert not logs.exists()

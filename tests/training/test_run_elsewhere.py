"""A run that was stopped, and is begun again on other devices, in other batches or by another strategy."""

from pathlib import Path

import pytest

from lit_t6.cli import run
from lit_t6.training.run_folder import FINISHED_NAME

QUIET = ["--samples.max_new_tokens=0", "--diagnostics.every_n_validations=0", "--data.eval_windows=2"]

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@pytest.fixture
def stopped(options, capsys):
    """The folder of a run that is as one that was stopped."""
    words = [*options, *QUIET, "--data.batch_size=2", "--data.global_batch_size=4", "--trainer.val_check_interval=2"]
    folder = Path(run(["fit", *words]).trainer.log_dir)
    (folder / FINISHED_NAME).unlink()
    capsys.readouterr()
    return folder, words


def test_it_is_named_with_what_is_not_as_it_was(stopped, capsys):
    folder, words = stopped
    finished = run(["fit", *words, "--data.batch_size=4", "--data.num_workers=1"])
    said = capsys.readouterr().out
    assert Path(finished.trainer.log_dir) != folder
    assert (
        f"{folder} is the same, not finished, where data.batch_size was 2, data.num_workers was 0: --ckpt_path "
        f"{folder}/checkpoints/last.ckpt goes on with it. This is a new run."
    ) in said


def test_another_run_is_not(stopped, capsys):
    _, words = stopped
    run(["fit", *words, "--data.batch_size=4", "--model.optimizer.lr=0.002"])
    assert "is the same, not finished" not in capsys.readouterr().out


def test_nor_is_any_where_a_run_has_a_place_of_its_own(stopped, capsys):
    _, words = stopped
    run(["fit", *words, "--data.batch_size=4", "--trainer.logger.init_args.version=mine"])
    assert "is the same, not finished" not in capsys.readouterr().out


def test_nor_is_one_without_checkpoints(stopped, capsys):
    folder, words = stopped
    for path in folder.rglob("*.ckpt"):
        path.unlink()
    run(["fit", *words, "--data.batch_size=4"])
    assert "is the same, not finished" not in capsys.readouterr().out


def test_its_own_checkpoint_is_named_where_others_lie_too(options, tmp_path, capsys):
    words = [*options, *QUIET, "--data.batch_size=2", "--data.global_batch_size=4", "--trainer.val_check_interval=2"]
    words.append(f"--checkpoint.dirpath={tmp_path / 'shared'}")
    folder = Path(run(["fit", *words]).trainer.log_dir)
    (folder / FINISHED_NAME).unlink()
    own = set((tmp_path / "shared").glob("*.ckpt"))
    run(["fit", *words, "--model.optimizer.lr=0.002"])
    capsys.readouterr()
    run(["fit", *words, "--data.batch_size=4"])
    said = capsys.readouterr().out
    assert f"{folder} is the same, not finished, where data.batch_size was 2: --ckpt_path " in said
    assert Path(said.partition("was 2: --ckpt_path ")[2].partition(" goes on")[0]) in own

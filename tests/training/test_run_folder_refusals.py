"""What a run does not take up, and which folders it does not train in."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.cli import main
from tests.training.test_run_folder import RESUMABLE, fit, flip, leave_unfinished


def test_a_run_at_work_is_left_alone(options):
    folder = fit(options).trainer.log_dir
    leave_unfinished(folder)
    with open(f"{folder}/run.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert fit(options).trainer.log_dir.endswith("version_1")
    assert fit(options).trainer.log_dir == folder  # nobody holds it any more
    assert (Path(folder) / "finished").exists()


def test_another_run_in_a_named_folder_is_refused(options, capsys):
    words = [*options, "--trainer.logger.init_args.version=mine"]
    fit(words)
    assert main(["fit", *words, "--model.num_layers=2"]) == 1
    assert "mine: holds another run already. Choose another name or version" in capsys.readouterr().err


def test_never_starts_afresh_in_silence(options, capsys):
    folder = Path(fit(options).trainer.log_dir)
    leave_unfinished(folder)
    saved = [*folder.glob("checkpoints/*.ckpt")]
    for path in saved:
        path.write_bytes(path.read_bytes()[:1000])
    assert main(["fit", *options]) == 1
    error = capsys.readouterr().err
    assert all(f"{path}: not a checkpoint, or a damaged one: its 1,000 bytes" in error for path in saved)
    assert "or start afresh with --auto_resume false." in error
    assert fit(options, "--auto_resume=false").trainer.log_dir.endswith("version_1")


@pytest.mark.parametrize("command", ["fit", "validate", "generate"])
def test_a_damaged_checkpoint_that_was_named_is_refused_and_another_offered(options, capsys, command):
    folder = Path(fit(options, *RESUMABLE).trainer.log_dir)
    last, words = folder / "checkpoints" / "last.ckpt", [] if command == "generate" else options
    flip(last)
    assert main([command, *words, "--ckpt_path", str(last)]) == 1
    error = capsys.readouterr().err
    assert f"{last}: not a checkpoint, or a damaged one: " in error
    assert f"{folder / 'checkpoints' / 'step=3.ckpt'} is whole, the newest beside it." in error


def test_processes_that_others_start_must_agree(options, monkeypatch):
    from lit_t6.training.run_folder import RunFolder, Unfinished

    class Strategy:
        def broadcast(self, value):
            return "a.ckpt"

    class Trainer:
        strategy, global_rank = Strategy(), 1

    with pytest.raises(ValueError, match="rank 1 found b.ckpt to go on with, rank 0 found a.ckpt: do all hosts see"):
        RunFolder(None, None, Unfinished("x", 0, "b.ckpt"))._check_agreement(Trainer())


def test_a_folder_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    from lit_t6.training import run_lock

    def refuse(*_):
        raise OSError(os.strerror(95))

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    assert not run_lock.is_held(tmp_path)


def test_a_named_run_killed_before_its_first_checkpoint_starts_again(options):
    words = [*options, "--trainer.logger.init_args.version=mine"]
    folder = Path(fit(words).trainer.log_dir)
    (folder / "finished").unlink()
    for path in folder.glob("checkpoints/*"):
        path.unlink()
    assert fit(words).trainer.log_dir == str(folder)
    assert len(EventAccumulator(str(folder)).Reload().Scalars("train/loss")) == 3
    with pytest.raises(ValueError, match="mine: holds this run, finished already"):
        fit(words)


NAMED = "--trainer.logger.init_args.version=mine"


def curve(folder):
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]


@pytest.fixture
def elsewhere(options, tmp_path):
    """The words of a run that keeps its checkpoints elsewhere and has a folder of its own name."""
    return [*options, NAMED, f"--checkpoint.dirpath={tmp_path / 'elsewhere'}", "--resume.every_n_minutes=0"]


def moved(folder):
    """The run's folder after it was moved: checkpoints elsewhere say another one's name."""
    folder.rename(folder.with_name("moved"))
    return ["--trainer.logger.init_args.version=moved"], folder.with_name("moved")


def copied(folder):
    shutil.copytree(folder, folder.with_name("copy"))
    return ["--trainer.logger.init_args.version=copy"], folder.with_name("copy")


def as_it_was(folder):
    return [], folder


def told_to_start_afresh(folder):
    return ["--auto_resume=false"], folder


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("change", "before"),
    [(moved, []), (copied, []), (told_to_start_afresh, []), (as_it_was, ["--checkpoint.save_weights_only=true"])],
)
def test_curves_are_not_lost_where_the_checkpoints_are_not_taken_up(elsewhere, tmp_path, capsys, change, before):
    """It would begin at step 0 and trim its curves to nothing."""
    words = [*elsewhere, *before]
    folder = Path(fit(words).trainer.log_dir)
    leave_unfinished(folder)
    more, folder = change(folder)
    assert main(["fit", *words, *more]) == 1
    error = capsys.readouterr().err
    assert f"{folder}: holds this run, not finished, already. None of the checkpoints in {tmp_path}/elsewhere" in error
    assert "go on from one of its checkpoints with --ckpt_path" in error
    assert curve(folder) == [0, 1, 2]
    if not before:
        last = tmp_path / "elsewhere" / "last.ckpt"
        assert fit(words, *more, f"--ckpt_path={last}", "--trainer.max_steps=4").trainer.global_step == 4


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_named_run_without_checkpoints_starts_again_beside_those_of_others(elsewhere):
    """Unattended, as jobs of a study that save into one folder are started again."""
    fit(elsewhere, "--trainer.logger.init_args.version=theirs", "--data.seed=1")
    folder = Path(fit(elsewhere).trainer.log_dir)
    leave_unfinished(folder)
    for path in folder.parents[2].glob("elsewhere/*-v1.ckpt"):
        path.unlink()
    assert fit(elsewhere).trainer.log_dir == str(folder)
    assert curve(folder) == [0, 1, 2]


@pytest.mark.parametrize(("more", "whose"), [([], "this run already"), (["--data.seed=1"], "another run")])
def test_nothing_is_touched_where_a_process_is_at_work(options, capsys, more, whose):
    """Also before its first checkpoint, when it has curves alone."""
    words = [*options, NAMED]
    folder = Path(fit(words).trainer.log_dir)
    leave_unfinished(folder)
    for path in folder.glob("checkpoints/*"):
        path.unlink()
    with open(folder / "run.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["fit", *words, *more]) == 1
    error = capsys.readouterr().err
    assert f"{folder}: another process trains {whose} in this folder; wait for it, or stop it." in error
    assert curve(folder) == [0, 1, 2]


def test_a_refused_folder_is_not_held(options):
    words = [*options, NAMED]
    folder = Path(fit(words).trainer.log_dir)
    with pytest.raises(ValueError, match="mine: holds another run already"):
        fit(words, "--data.seed=1")
    with (folder / "run.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_run_that_is_not_taken_up_is_not_called_another(options):
    words = [*options, NAMED]
    folder = Path(fit(words).trainer.log_dir)
    leave_unfinished(folder)
    with pytest.raises(ValueError, match="mine: holds this run, not finished, already. None of the checkpoints in"):
        fit(words, "--auto_resume=false")
    assert curve(folder) == [0, 1, 2]

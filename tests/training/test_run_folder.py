import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.cli import main, run
from lit_t6.training.places import folder_of
from tests.training.disks import fill, small_disk

ENDLESS = ["--trainer.max_steps=20000", "--trainer.val_check_interval=20", "--data.eval_windows=2"]
QUIET = ["--samples.max_new_tokens=0", "--diagnostics.every_n_validations=0"]


def fit(options, *more):
    return run(["fit", *options, *more])


def interrupted(options, tmp_path, *more):
    """A run that is killed after its first checkpoint."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "cli.py", "fit", *options, *more])
    while not list(tmp_path.glob("**/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.wait()
    (folder,) = {path.parent.parent for path in tmp_path.glob("**/last.ckpt")}
    return folder


def leave_unfinished(folder):
    """What a kill right after the last checkpoint leaves."""
    (Path(folder) / "finished").unlink()


def test_the_same_command_goes_on_where_it_was_killed(options, tmp_path, capsys):
    words = [*options, *ENDLESS, *QUIET]
    folder = interrupted(words, tmp_path)
    config = (folder / "config.yaml").read_text()
    saved = max(int(path.stem.removeprefix("step=")) for path in folder.glob("checkpoints/step=*.ckpt"))
    time.sleep(1)  # TensorBoard reads a run's files by the second in their names, and this process starts in no time
    # As the killed command would, but to an end that a test can wait for.
    (folder / "config.yaml").write_text(config.replace("max_steps: 20000", f"max_steps: {saved + 30}"))
    finished = fit(words, f"--trainer.max_steps={saved + 30}")
    assert Path(finished.trainer.log_dir) == folder
    assert finished.trainer.global_step == saved + 30
    assert f"Going on with {folder} after step {saved}" in capsys.readouterr().out
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    for tag in ("train/loss", "perf/step_ms", "progress/tokens"):
        assert [event.step for event in events.Scalars(tag)] == list(range(saved + 30)), tag
    tokens = [event.step for event in events.Scalars("train/loss_over_tokens")]
    assert tokens == [16 * 32 * n for n in range(1, saved + 31)]
    assert (folder / "finished").exists()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_finished_run_is_not_taken_up_and_named(options, capsys):
    first = fit(options)
    assert "finished run" not in capsys.readouterr().out
    second = fit(options)
    assert first.trainer.log_dir.endswith("version_0")
    assert second.trainer.log_dir.endswith("version_1")
    last = f"--ckpt_path {first.trainer.log_dir}/checkpoints/last.ckpt --trainer.max_steps 6"
    said = f"{first.trainer.log_dir} is a finished run of the same settings; this begins a new one. To go on with it"
    assert f"{said} instead, add {last}. The learning rate then rises" in capsys.readouterr().out
    assert fit(options, *last.split()).trainer.global_step == 6
    assert fit(options, "--auto_resume=false").trainer.log_dir.endswith("version_3")
    assert "finished run" not in capsys.readouterr().out


@pytest.mark.parametrize("other", ["--model.optimizer.lr=0.0039", "--data.num_workers=1", "--auto_resume=false"])
def test_another_command_starts_afresh(options, other):
    leave_unfinished(fit(options).trainer.log_dir)
    assert fit(options, other).trainer.log_dir.endswith("version_1")


def flip(path):
    """Damage a file as a bad disk does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


RESUMABLE = ["--resume.every_n_steps=1", "--resume.keep=3", "--trainer.max_steps=3", "--trainer.val_check_interval=100"]


def test_goes_on_from_the_newest_whole_checkpoint_and_names_the_others(options, capsys):
    straight = fit(options, *RESUMABLE)
    folder = Path(straight.trainer.log_dir)
    expected = {name: value.clone() for name, value in straight.model.state_dict().items()}
    leave_unfinished(folder)
    newest, before = ([*folder.glob(f"checkpoints/**/{name}")] for name in ("*.ckpt", "step=2.ckpt"))
    newest = [path for path in newest if path.name not in ("step=1.ckpt", "step=2.ckpt")]
    assert {path.name for path in newest} == {"last.ckpt", "step=3.ckpt"}
    for path in newest:
        flip(path)
    capsys.readouterr()
    finished = fit(options, *RESUMABLE)
    assert finished.trainer.log_dir == str(folder)
    output = capsys.readouterr()
    assert "after step 2" in output.out
    for path in newest:
        assert f"warning: {path}: not a checkpoint, or a damaged one: its contents are not those" in output.err
    assert f"Going on from an earlier one, {before[0]}." in output.err
    assert all(value.equal(expected[name]) for name, value in finished.model.state_dict().items())
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2]


def test_weights_alone_come_last_and_equal_steps_by_time(tmp_path):
    import torch

    from lit_t6.training.checkpoint_choice import newest_whole

    contents = {"old": (5, True), "new": (5, True), "early": (3, True), "weights": (9, False)}
    for name, (step, whole) in contents.items():
        torch.save({"global_step": step} | ({"optimizer_states": []} if whole else {}), tmp_path / f"{name}.ckpt")
    os.utime(tmp_path / "old.ckpt", (1, 1))
    left = set(tmp_path.iterdir())
    for name in ("new", "old", "early", "weights"):
        path, damaged = newest_whole(left)
        assert (path.stem, damaged) == (name, [])
        left.remove(path)
    assert newest_whole(left) == (None, [])


def test_a_run_with_weights_alone_starts_anew_and_says_so(options, capsys):
    words = [*options, "--checkpoint.save_weights_only=true", "--resume.every_n_minutes=0"]
    folder = Path(fit(words).trainer.log_dir)
    leave_unfinished(folder)
    capsys.readouterr()
    again = fit(words)
    assert again.trainer.log_dir.endswith("version_1")
    assert again.trainer.global_step == 3
    assert f"warning: {folder}: this run is not finished, but its checkpoints hold weights alone" in (
        capsys.readouterr().err
    )


def test_an_older_whole_checkpoint_comes_before_newer_weights(options, capsys):
    words = [*options, *RESUMABLE, "--checkpoint.save_weights_only=true", "--checkpoint.every_n_train_steps=1"]
    words += ["--checkpoint.monitor=null", "--resume.every_n_steps=2"]
    folder = Path(fit(words).trainer.log_dir)
    leave_unfinished(folder)
    capsys.readouterr()
    assert fit(words).trainer.log_dir == str(folder)
    output = capsys.readouterr()
    assert f"Going on with {folder} after step 2" in output.out
    assert "weights alone" not in output.err


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_runs_that_save_into_one_folder_go_on_from_their_own(options, tmp_path, capsys):
    """The first is at a later step, finished and of another configuration; the second goes on from its own."""
    shared = [f"--checkpoint.dirpath={tmp_path / 'shared'}", "--resume.every_n_minutes=0"]
    first = fit(options, *shared, "--data.seed=1")
    second = [*shared, "--trainer.max_steps=2"]
    folder = Path(fit(options, *second).trainer.log_dir)
    leave_unfinished(folder)
    capsys.readouterr()
    finished = fit(options, *second)
    assert finished.trainer.log_dir == str(folder)
    output = capsys.readouterr()
    assert f"Going on with {folder} after step 2" in output.out
    others = f"warning: 2 checkpoints in {tmp_path / 'shared'} are of other runs or do not say whose they are, such as "
    assert f"{others}step=3.ckpt of {first.trainer.log_dir}: {folder} does not go on from them." in output.err


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_without_a_checkpoint_of_its_own_takes_none_of_anothers(options, tmp_path, capsys):
    shared = [f"--checkpoint.dirpath={tmp_path / 'shared'}", "--resume.every_n_minutes=0"]
    fit(options, *shared, "--data.seed=1")
    folder = Path(fit(options, *shared).trainer.log_dir)
    leave_unfinished(folder)
    for path in (tmp_path / "shared").glob("*-v1.ckpt"):
        path.unlink()
    again = fit(options, *shared)
    assert again.trainer.log_dir != str(folder)
    assert "2 checkpoints in" in capsys.readouterr().err


def test_how_often_it_is_saved_makes_no_other_run(options):
    folder = fit(options).trainer.log_dir
    leave_unfinished(folder)
    others = ["--resume.every_n_minutes=1", "--on_save_error=stop", "--guards.on_nonfinite=skip"]
    others += ["--model.recompute=selective"]
    assert fit(options, *others).trainer.log_dir == folder


def test_a_folder_of_their_own_for_curves_moves_nothing_else(options):
    words = [*options, *RESUMABLE, "--trainer.logger.init_args.sub_dir=curves"]
    trainer = fit(words).trainer
    folder = folder_of(trainer)
    assert trainer.log_dir == str(folder / "curves")
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "checkpoints", "finished", "run.lock", "curves"}
    assert len(list(folder.glob("checkpoints/resume/*.ckpt"))) == 2
    leave_unfinished(folder)
    (folder / "checkpoints" / "last.ckpt").unlink()
    for path in folder.glob("checkpoints/step=*.ckpt"):
        path.unlink()
    assert fit(words).trainer.log_dir == trainer.log_dir
    events = EventAccumulator(trainer.log_dir).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2]


def test_every_part_means_the_same_folder(options, monkeypatch, tmp_path):
    """Also where the user writes it with a variable, which TensorBoardLogger reads."""
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    words = [*options, *RESUMABLE, "--trainer.logger.init_args.save_dir=$RUNS", "--guards.on_nonfinite=skip"]
    trainer = fit(words, f"--checkpoint.dirpath={tmp_path / 'best'}").trainer
    folder = folder_of(trainer)
    assert folder == Path(trainer.log_dir) == tmp_path / "runs" / "quickstart" / "version_0"
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "checkpoints", "finished"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"resume"}
    leave_unfinished(folder)
    assert fit(words, f"--checkpoint.dirpath={tmp_path / 'best'}").trainer.log_dir == str(folder)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_full_disk_at_the_start_leaves_the_configuration_by_which_a_run_is_found(options, tmp_path, capsys):
    with small_disk(tmp_path / "disk", "8m") as disk:
        words = [*options, f"--trainer.logger.init_args.save_dir={disk}", "--trainer.logger.init_args.version=mine"]
        folder = Path(fit(words).trainer.log_dir)
        before = (folder / "config.yaml").read_text()
        leave_unfinished(folder)
        fill(disk)
        last = folder / "checkpoints" / "last.ckpt"
        assert main(["fit", *words, "--trainer.max_steps=4", f"--ckpt_path={last}"]) == 1
        assert f"error: {folder}/config.yaml: No space left on device." in capsys.readouterr().err
        assert (folder / "config.yaml").read_text() == before
        assert not list(folder.glob(".replaced.*"))


@pytest.mark.parametrize(("at", "validations"), [(3, [1, 3, 5]), (4, [1, 3, 5]), (6, [1, 3, 5])])
def test_ctrl_c_loses_no_validation(options, at, validations, monkeypatch):
    from lit_t6.training import SaveOnInterrupt

    class Presses(SaveOnInterrupt):
        def on_train_batch_end(self, trainer, *arguments):
            self.interrupted = self.interrupted or trainer.global_step == at
            super().on_train_batch_end(trainer, *arguments)

    words = [*options, *QUIET, "--trainer.max_steps=6", "--trainer.val_check_interval=2", "--data.eval_windows=2"]
    monkeypatch.setattr("lit_t6.training.cli.SaveOnInterrupt", Presses)
    before = signal.getsignal(signal.SIGINT)
    if at < 6:
        with pytest.raises(SystemExit):
            fit(words)
    else:  # it ends with this step in any case
        folder = fit(words).trainer.log_dir
    signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    if at < 6:
        finished = fit(words)
        assert finished.trainer.global_step == 6
        folder = finished.trainer.log_dir
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("val/loss")] == validations
    assert [event.step for event in events.Scalars("train/loss")] == list(range(6))
    assert len(events.Tensors("run/model")) == 1


def test_a_run_that_a_time_limit_ended_is_not_finished(options):
    words = [*options, *ENDLESS, *QUIET, "--trainer.max_time=00:00:00:01"]
    folder = Path(fit(words).trainer.log_dir)
    assert not (folder / "finished").exists()
    again = fit(words)
    assert Path(again.trainer.log_dir) == folder


def test_the_saved_configuration_is_the_one_that_was_typed(options):
    folder = Path(fit(options).trainer.log_dir)
    before = (folder / "config.yaml").read_text()
    leave_unfinished(folder)
    assert fit(options).trainer.log_dir == str(folder)
    assert (folder / "config.yaml").read_text() == before


def test_errors_in_the_data_leave_no_folder(options, tmp_path):
    with pytest.raises(ValueError, match="tokens; set --model.vocab_size 400 or more"):
        fit(options, "--model.vocab_size=300")
    assert not list(tmp_path.iterdir())

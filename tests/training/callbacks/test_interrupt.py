import os
import signal
import stat
import time

import pytest
from lightning.pytorch.callbacks import Callback

from lit_t6.cli import main, run
from lit_t6.training import SafeModelCheckpoint, SaveOnInterrupt

from ..endless import NEVER, Endless
from ..runs import fit

LONG_VALIDATION = [
    "--trainer.val_check_interval=3",
    "--data.eval_windows=null",
    "--data.eval_batch_size=1",
    "--trainer.num_sanity_val_steps=0",
    "--data.seq_len=2",
]


def goes_on(training, capsys, samples=16):
    """The same command goes on after the saved step, and ends two steps later."""
    step = training.saved_step()
    finished = run(["fit", *training.end_after(step + 2)])
    assert finished.trainer.log_dir == str(training.folder())
    assert finished.trainer.global_step == step + 2
    assert finished.datamodule.samples_seen == samples * (step + 2)
    assert f"Going on with {training.folder()} after step {step:,}" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_same_command_goes_on(options, tmp_path, capsys, number):
    with Endless(options, tmp_path) as training:
        training.wait_for_step()
        training.process.send_signal(number)
        assert training.status() == 75, training.said()
    assert "Stopping after this step" in training.said()
    assert training.said().count("Saved") == 1
    assert "; the same command goes on." in training.said()
    assert "Traceback" not in training.said()
    goes_on(training, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_loaders_too_saves(options, tmp_path, capsys, number):
    """As a terminal's Ctrl-C does, and SLURM."""
    with Endless(options, tmp_path, "--data.num_workers=2") as training:
        training.wait_for_step()
        assert len(training.pids()) > 2
        os.killpg(training.process.pid, number)
        assert training.status() == 75, training.said()
    goes_on(training, capsys)


@pytest.mark.slow
def test_no_loader_outlives_a_killed_training(options, tmp_path):
    """It would hold the lock of the run's folder, and the same command would start afresh."""
    with Endless(options, tmp_path, "--data.num_workers=2") as training:
        training.wait_for_step()
        training.process.kill()
        assert training.status() == -signal.SIGKILL


def test_a_second_ctrl_c_stops_at_once(options, tmp_path):
    """In a validation that would take long."""
    with Endless(options, tmp_path, *LONG_VALIDATION) as training:
        training.wait_for_step()
        training.process.send_signal(signal.SIGINT)
        assert training.wait_for_text("Stopping after this step"), training.said()
        training.process.send_signal(signal.SIGINT)
        assert training.status() == 130, training.said()
    assert "Stopped at once by a second Ctrl-C: what came after the last checkpoint is lost." in training.said()
    assert "Saved" not in training.said()
    assert "Traceback" not in training.said()


@pytest.mark.slow
@pytest.mark.parametrize(("words", "text", "status"), [([], "Saved ", 75), (LONG_VALIDATION, "Stopping after", 130)])
def test_ctrl_c_until_the_process_has_ended(options, tmp_path, words, text, status):
    """After the save, or instead of it."""
    with Endless(options, tmp_path, *words) as training:
        training.wait_for_step()
        training.process.send_signal(signal.SIGINT)
        assert training.wait_for_text(text), training.said()
        while training.process.poll() is None:
            training.process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        assert training.status() == status, training.said()
    assert "Traceback" not in training.said()


@pytest.mark.slow
def test_schedulers_may_signal_twice(options, tmp_path):
    with Endless(options, tmp_path) as training:
        training.wait_for_step()
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            training.process.send_signal(number)
        assert training.status() == 75, training.said()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_before_the_first_step_there_is_nothing_to_save(options, tmp_path, number, status):
    """Here in the sanity check, made long."""
    words = ["--trainer.num_sanity_val_steps=-1", "--data.eval_windows=null", "--data.eval_batch_size=1"]
    with Endless(options, tmp_path, *words, "--data.seq_len=2") as training:
        assert training.wait_for_text("parameters"), training.said()  # the panel, after the handlers are there
        training.process.send_signal(number)
        assert training.status() == status, training.said()
    assert "before the first step: nothing to save." in training.said()
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_without_checkpoints_nothing_is_promised(prepared, tmp_path, capfd):
    from lit_t6.training.callbacks.interrupt import TrainingInterrupted

    class Presses(SaveOnInterrupt):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted) as stopped:
        fit(tmp_path, prepared, callbacks=[Presses()])
    assert stopped.value.code == 143
    out = capfd.readouterr().out
    assert "Stopping after this step; Ctrl-C stops" in out
    assert "after step 3; nothing is saved: checkpoints are turned off" in out
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_where_the_same_command_starts_afresh_another_is_named(options, tmp_path):
    with Endless(options, tmp_path, "--auto_resume=false") as training:
        training.wait_for_step()
        training.process.send_signal(signal.SIGTERM)
        assert training.status() == 75, training.said()
    assert f"; --ckpt_path {training.folder()}/checkpoints/last.ckpt goes on." in training.said()


def test_a_signal_after_the_last_step_changes_nothing(options, monkeypatch):
    from lit_t6.training import ValidateAtEnd

    class Signals(ValidateAtEnd):
        def on_train_end(self, trainer, pl_module):
            os.kill(os.getpid(), signal.SIGTERM)

        def on_fit_end(self, trainer, pl_module):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("lit_t6.training.module.ValidateAtEnd", Signals)
    finished = run(["fit", *options])
    assert os.path.exists(f"{finished.trainer.log_dir}/finished")


class SignalsAtTwo(SaveOnInterrupt):
    """Gets a SIGTERM in the second step."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def reached():
    """The signals that come through to the program; the handlers are put back after every test."""
    numbers = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _: numbers.append(number))
    return numbers


def test_a_signal_after_the_save_does_not_change_the_outcome(options, monkeypatch, reached):
    """Until the process has ended, the status says that it is saved."""
    monkeypatch.setattr("lit_t6.training.cli.SaveOnInterrupt", SignalsAtTwo)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *options])
    os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 75
    assert not reached


class SignalsAtTheEnd(Callback):
    """Gets a signal when the training, saved, is about to be left."""

    def __init__(self, number=signal.SIGTERM, times=1):
        self.number, self.times = number, times

    def on_exception(self, *_):
        for _ in range(self.times):
            os.kill(os.getpid(), self.number)


def test_more_ctrl_c_after_the_save_do_not_change_the_status(prepared, tmp_path, capfd):
    class PressedAtTwo(SaveOnInterrupt):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 1:
                os.kill(os.getpid(), signal.SIGINT)

    saver = SafeModelCheckpoint(monitor=None, every_n_train_steps=100)
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, prepared, callbacks=[saver, PressedAtTwo(), SignalsAtTheEnd(signal.SIGINT, times=2)])
    assert stopped.value.code == 75
    assert f"Saved {saver.last_model_path} after step 2" in capfd.readouterr().out


def has_its_signals_back(reached):
    """And had not before."""
    before = reached.copy()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    return before == [] and reached == [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


def test_a_program_that_catches_the_exit_of_a_trainer_has_its_signals_back(reached, prepared, tmp_path):
    saver = SafeModelCheckpoint(monitor=None, every_n_train_steps=100)
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, prepared, callbacks=[saver, SignalsAtTwo(), SignalsAtTheEnd()])
    assert stopped.value.code == 75
    assert has_its_signals_back(reached)


def test_a_program_that_catches_the_exit_of_a_command_has_its_signals_back(reached, options, monkeypatch):
    monkeypatch.setattr("lit_t6.training.cli.SaveOnInterrupt", SignalsAtTwo)
    with pytest.raises(SystemExit) as stopped:
        run(["fit", *options])
    assert stopped.value.code == 75
    assert has_its_signals_back(reached)


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_a_validation_of_nothing_is_not_waited_for(prepared, tmp_path, monkeypatch):
    """Lightning's loop says at every step that one follows, and passes over it."""
    monkeypatch.setattr("lit_t6.TokenDataModule.val_dataloader", lambda self: [])
    callbacks = [SafeModelCheckpoint(monitor=None, every_n_train_steps=100), SignalsAtTwo()]
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, prepared, callbacks=callbacks, val_check_interval=1)
    assert stopped.value.code == 75


def test_a_signal_is_no_exception_to_save_at(options, monkeypatch, tmp_path):
    """One checkpoint, and none where nothing is to be saved."""
    monkeypatch.setattr("lit_t6.training.cli.SaveOnInterrupt", SignalsAtTwo)
    with pytest.raises(SystemExit):
        run(["fit", *options, "--checkpoint.save_on_exception=true"])
    assert [path.name for path in tmp_path.glob("**/*.ckpt")] == ["last.ckpt"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_last_checkpoint_of_another_run_in_the_same_folder_stays(options, monkeypatch, tmp_path, capsys):
    words = [*options, f"--checkpoint.dirpath={tmp_path / 'shared'}"]
    run(["fit", *words])
    before = (tmp_path / "shared" / "last.ckpt").read_bytes()
    monkeypatch.setattr("lit_t6.training.cli.SaveOnInterrupt", SignalsAtTwo)
    with pytest.raises(SystemExit) as stopped:
        run(["fit", *words, "--data.seed=1"])
    assert stopped.value.code == 75
    assert (tmp_path / "shared" / "last.ckpt").read_bytes() == before
    assert f"Saved {tmp_path / 'shared' / 'last-v1.ckpt'} after step 2" in capsys.readouterr().out


@pytest.mark.slow
def test_slurm_is_asked_to_requeue_once_the_checkpoint_is_saved(options, tmp_path):
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nls {tmp_path}/*/*/checkpoints >> {tmp_path}/asked\n'
    )
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IEXEC)
    job = dict(SLURM_JOB_ID="17", SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0")
    job |= dict(SLURM_JOB_NAME="t6", PATH=f"{scontrol.parent}:{os.environ['PATH']}")
    with Endless(options, tmp_path, **job) as training:
        training.wait_for_step()
        os.kill(training.process.pid, signal.SIGUSR1)
        assert training.status() == 75, training.said()
    assert (tmp_path / "asked").read_text().splitlines() == ["requeue 17", "last.ckpt"]
    assert not list(tmp_path.glob("**/hpc_ckpt*"))
    assert "scontrol requeue 17: the job will run again." in training.said()
    assert str(NEVER) in (training.folder() / "config.yaml").read_text()

"""Two processes that train on a CPU: one is told to stop, or dies."""

import os
import signal

import pytest

from .training.endless import Endless, wait_for

pytestmark = pytest.mark.slow
DDP = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--data.batch_size=8"]


def same_command_ends(training, tmp_path, step):
    """The same command goes on from `step`, in two processes again, and ends two steps later."""
    with Endless([], tmp_path, *training.end_after(step + 2)) as again:
        assert again.status(200) == 0, again.said()
    assert f"after step {step:,}: the same command began it" in again.said()
    assert (training.folder() / "finished").read_text() == f"{step + 2} steps\n"


@pytest.mark.parametrize("reached", ["parent", "child", "group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_any_process_saves_once(options, tmp_path, reached, number):
    with Endless(options, tmp_path, *DDP) as training:
        training.wait_for_step()
        (child,) = training.others()
        if reached == "group":
            os.killpg(training.process.pid, number)
        else:
            os.kill(training.process.pid if reached == "parent" else child, number)
        assert training.status() == 75, training.said()
    assert training.said().count("Saved") == 1
    assert "Traceback" not in training.said()
    assert "error" not in training.said()
    same_command_ends(training, tmp_path, training.saved_step())


def test_a_second_ctrl_c_stops_all_at_once(options, tmp_path):
    """In a long validation."""
    words = ["--trainer.val_check_interval=3", "--data.eval_windows=null", "--data.eval_batch_size=1"]
    words += ["--trainer.num_sanity_val_steps=0", "--data.seq_len=2"]
    with Endless(options, tmp_path, *DDP, *words) as training:
        training.wait_for_step()
        os.killpg(training.process.pid, signal.SIGINT)
        assert training.wait_for_text("Stopping after this step"), training.said()
        os.killpg(training.process.pid, signal.SIGINT)
        assert training.status() == 130, training.said()
    assert "Saved" not in training.said()


@pytest.mark.parametrize("dies", ["parent", "child"])
def test_if_one_dies_all_end_and_the_same_command_goes_on(options, tmp_path, dies):
    words = ["--checkpoint.every_n_train_steps=10", "--checkpoint.monitor=null"]
    with Endless(options, tmp_path, *words, *DDP) as training:
        training.wait_for_step()
        assert wait_for(lambda: list(tmp_path.glob("**/last.ckpt"))), training.said()
        (child,) = training.others()
        victim, other = (training.process.pid, child) if dies == "parent" else (child, training.process.pid)
        os.kill(victim, signal.SIGKILL)
        assert wait_for(lambda: other not in training.pids(), 60), training.said()
        assert training.status() == (-signal.SIGKILL if dies == "parent" else 1)
    errors = [line for line in training.said().splitlines() if "error" in line.lower()]
    named = f"the first process ({victim}) is gone" if dies == "parent" else f"rank 1 (process {victim}) was killed by"
    assert len(errors) == 1, training.said()
    assert errors[0].startswith(f"error: {named}")
    assert "Traceback" not in training.said()
    (step,) = {int(path.stem.removeprefix("step=")) for path in training.folder().glob("checkpoints/step=*.ckpt")}
    same_command_ends(training, tmp_path, step)


def test_one_stops_before_the_first_step(options, tmp_path):
    """No process is left, whatever the others were waiting for."""
    with Endless(options, tmp_path, *DDP) as training:
        assert wait_for(lambda: training.others(), 60), training.said()
        training.process.send_signal(signal.SIGTERM)
        assert training.status() in (143, -signal.SIGTERM), training.said()
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_before_the_first_new_step_all_stop_after_it(options, tmp_path):
    """One that ended by itself, though with a checkpoint, would leave the other waiting."""
    with Endless(options, tmp_path, *DDP) as training:
        training.wait_for_step()
        training.process.send_signal(signal.SIGTERM)
        assert training.status() == 75, training.said()
    step = training.saved_step()
    with Endless(options, tmp_path, *DDP) as again:
        assert again.wait_for_text("parameters"), again.said()
        again.process.send_signal(signal.SIGTERM)
        assert again.status() == 75, again.said()
    assert again.said().count("Saved") == 1
    assert step < again.saved_step() <= step + 3


def test_an_error_in_all_processes_leaves_none(options, tmp_path):
    words = [*options, *DDP, "--data.global_batch_size=24"]
    with Endless(words, tmp_path) as training:
        assert training.status() == 1
    assert "error: data.global_batch_size=24 is not a multiple" in training.said()

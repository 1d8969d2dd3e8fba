"""Command lines whose output goes to a full device, to nobody or in an encoding of few letters, or whose peers go."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from .ports import free_port
from .training.endless import Endless, wait_for
from .training.runs import fit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and /proc")


def ended(*words):
    command = [sys.executable, "-W", "ignore", "cli.py", *words]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # what was printed is written at the end
    with open("/dev/full", "w") as full:
        return subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=buffered)


@pytest.mark.parametrize(("step", "status"), [(2, 75), (100, 0)])
def test_the_status_of_a_training_is_that_of_the_training(options, tmp_path, step, status):
    signals = ["--trainer.callbacks=tests.training.endings.GetsSigterm", f"--trainer.callbacks.step={step}"]
    training = ended("fit", *options, *signals)
    assert training.returncode == status, training.stderr[-3000:]
    assert len(list(tmp_path.glob("**/last.ckpt"))) == 1


def test_what_a_command_printed_in_vain_is_an_error():
    """Told in one line, on the other stream."""
    help_text = ended("--help")
    assert (help_text.returncode, help_text.stderr) == (1, "error: [Errno 28] No space left on device\n")


def without_reader(*words, **environment):
    """The status of a command whose output nobody reads at all, and what it said."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-W", "ignore", "cli.py", *words]
    environment = os.environ | environment
    ended = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    os.close(writes)
    return ended.returncode, ended.stderr


@pytest.fixture(scope="module")
def checkpoint(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("piped")
    torch.manual_seed(0)  # a text that another model writes may end before it is 40 tokens long
    _, trainer = fit(folder, prepared, max_steps=1, logger=False, limit_val_batches=0)
    trainer.save_checkpoint(folder / "last.ckpt")
    return str(folder / "last.ckpt")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_leaves_is_no_error(unbuffered):
    assert without_reader("--help", PYTHONUNBUFFERED=unbuffered) == (0, "")
    assert without_reader("budget", "--config=MHA", PYTHONUNBUFFERED=unbuffered) == (0, "")


def test_generation_ends_with_its_reader_unless_it_writes_a_file(checkpoint, tmp_path):
    words = ["generate", "--ckpt_path", checkpoint, "--prompt=It was", "--max_new_tokens=40", "--seed=0"]
    status, said = without_reader(*words)
    assert (status, said) == (0, "")
    status, said = without_reader(*words, "--output", str(tmp_path / "texts.jsonl"))
    assert (status, said.startswith("40 tokens in")) == (0, True)
    assert (tmp_path / "texts.jsonl").read_text().startswith('{"prompt": "It was"')


def test_trainings_go_on_without_a_reader_and_evaluations_end(options, tmp_path, prepared):
    status, said = without_reader("fit", *options)
    assert status == 0, said
    (last,) = tmp_path.glob("**/last.ckpt")
    assert without_reader("validate", "--ckpt_path", str(last)) == (0, "")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["ascii", "latin-1"],
)
def test_what_an_encoding_does_not_have_ends_no_training(options, environment):
    command = [sys.executable, "-W", "ignore", "cli.py", "fit", *options]
    training = subprocess.run(command, capture_output=True, check=False, env=os.environ | environment)
    assert training.returncode == 0, training.stderr
    assert b" CPU, " in training.stdout


@pytest.mark.slow
def test_a_failed_rank_ends_though_its_peer_hangs_and_a_collective_is_under_way(options, tmp_path):
    """Processes that something else has started: nobody waits for the others, or kills them."""
    port = str(free_port())
    job = dict(TORCHELASTIC_RUN_ID="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE="2", GROUP_RANK="0")
    job |= dict(LOCAL_WORLD_SIZE="2", TORCHELASTIC_USE_AGENT_STORE="False")
    words = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--data.num_workers=0"]
    words += ["--trainer.callbacks=tests.training.endings.FailsAmongPeers", "--trainer.callbacks.step=3"]
    with (
        Endless(options, tmp_path, *words, RANK="0", LOCAL_RANK="0", **job) as first,
        Endless(options, tmp_path, *words, RANK="1", LOCAL_RANK="1", **job) as peer,
    ):
        assert first.wait_for_text("error: rank 0 fails"), first.said() + peer.said()
        peer.process.send_signal(signal.SIGSTOP)
        assert wait_for(lambda: first.process.poll() is not None, 30), first.said()
        assert first.process.returncode == 1, first.said()

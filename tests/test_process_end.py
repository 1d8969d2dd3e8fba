"""Command lines whose output goes to a device that is full: what is meant to be said is lost, the status is not."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")


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

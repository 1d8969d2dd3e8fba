"""The end of a process from one of its threads, here a process of its own."""

import os
import subprocess
import sys

import pytest

# Fills the pipe that nobody reads: a thread waits in print, and holds the lock of the stream.
STUCK = """
import sys, threading
from lit_t6.training.launcher import _end
stream = {stream}
threading.Thread(target=lambda: print("x" * (1 << 22), file=stream), daemon=True).start()
threading.Event().wait(0.5)
threading.Thread(target=_end, args=("gone", -9)).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("stream", ["sys.stdout", "sys.stderr"])
def test_a_reader_that_sleeps_does_not_hold_up_the_end(stream):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", STUCK.format(stream=stream)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.communicate()


ENDS = 'from lit_t6.training.launcher import _end; print("before"); _end("rank 1 is gone", {status})'


@pytest.mark.parametrize(("status", "expected"), [(-9, 1), (-15, 143)])
def test_it_says_why_after_what_was_printed(status, expected):
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", ENDS.format(status=status)], capture_output=True)
    assert (ended.returncode, ended.stdout) == (expected, b"before\n")
    assert ended.stderr == b"\nerror: rank 1 is gone\n"


def test_a_reader_that_is_gone_does_not_change_the_status():
    command = [sys.executable, "-W", "ignore", "-c", ENDS.format(status=-15)]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # what was printed is written at the end
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered)
    process.stdout.close()
    assert process.stderr.read() == b"\nerror: rank 1 is gone\n"
    assert process.wait(60) == 143
    process.stderr.close()

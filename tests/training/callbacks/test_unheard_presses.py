"""Ctrl-C in a call that lets no handler run."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow  # processes that are killed

PROGRAM = """
import hashlib, signal, sys
from lit_t6.training.callbacks.unheard_presses import UnheardPresses

heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
presses = UnheardPresses(lambda: len(heard), lambda text: print(text, flush=True), lambda: True)
print("ready", flush=True)
{then}
"""
AGAIN = "presses = UnheardPresses(lambda: len(heard), lambda text: print(text, flush=True), lambda: True)"
LONG_CALL = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)"  # lets go of the lock, and is not interrupted
FORKS = """
import os, time
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGINT)
    os._exit(0)
os.wait()
hashlib.pbkdf2_hmac('sha256', b'', b'', 6 * 10**6)
print("done", flush=True)
"""
HEARD_FIRST = f"""
import time
while not heard:
    time.sleep(0.01)
time.sleep(1.5)
print("heard", flush=True)
{LONG_CALL}
"""
TWO_CALLS = f"""
hashlib.pbkdf2_hmac('sha256', b'', b'', 10**7)
print("heard", len(heard), flush=True)
{LONG_CALL}
"""


def press(process):
    """Ctrl-C, when the process has come to its call: before it, the handler would hear."""
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)


@contextlib.contextmanager
def started(then, status):
    """The program, when it listens; in the end it has this status."""
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM.format(then=then)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
            assert process.wait(20) == status
        finally:
            process.kill()


def test_the_first_is_answered_and_the_second_ends_the_process():
    with started(LONG_CALL, 130) as process:
        press(process)
        assert process.stdout.readline().startswith("Ctrl-C is heard when the call at hand is done; a second one stops")
        press(process)
        assert process.stdout.readline().startswith("Stopped at once by a second Ctrl-C: what came after the last chec")


def test_the_second_ends_the_process_also_if_the_first_was_heard():
    with started(HEARD_FIRST, 130) as process:
        press(process)
        assert process.stdout.readline() == "heard\n"
        press(process)
        assert process.stdout.readline().startswith("Stopped at once by a second Ctrl-C")


def test_the_second_ends_the_process_in_another_call_than_that_of_the_first():
    with started(TWO_CALLS, 130) as process:
        press(process)
        assert process.stdout.readline().startswith("Ctrl-C is heard when the call at hand is done")
        assert process.stdout.readline() == "heard 1\n"
        press(process)
        assert process.stdout.readline().startswith("Stopped at once by a second Ctrl-C")


def test_signals_that_are_heard_are_left_to_their_handler():
    twice = "import time\nfor _ in range(2):\n    signal.raise_signal(signal.SIGINT)\n    time.sleep(1.5)"
    with started(f"{twice}\npresses.close()\nprint(len(heard))", 0) as process:
        assert process.stdout.read() == "2\n"


def test_what_was_heard_before_counts_as_it_does_for_the_handler():
    program = f"heard.append(1)\npresses.close()\n{AGAIN}\nprint('listens', flush=True)\n{LONG_CALL}"
    with started(program, 130) as process:
        assert process.stdout.readline() == "listens\n"
        press(process)
        assert process.stdout.readline().startswith("Stopped at once by a second Ctrl-C")


def test_those_of_a_forked_process_are_its_own():
    with started(FORKS, 0) as process:
        assert process.stdout.read() == "done\n"


def test_another_program_has_its_pipe_back():
    from lit_t6.training.callbacks.unheard_presses import UnheardPresses

    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.set_wakeup_fd(writes)
    UnheardPresses(lambda: 0, print, lambda: False).close()
    assert signal.set_wakeup_fd(before) == writes
    os.close(reads)
    os.close(writes)

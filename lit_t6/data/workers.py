"""Processes of a data loader that live exactly as long as they are needed."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import wait

_PR_SET_PDEATHSIG = 1


def leave_signals_to_the_parent(worker_id: int) -> None:
    """Let this loader process end when its parent says so, or is gone, and at no other time.

    Ctrl-C and schedulers signal every process of a job. Loader processes that died of it would take away the batches
    that the training needs to finish its step and save; those that outlived a killed parent would hold what it held
    open, such as the lock of the run's folder.

    The training is the parent here, also where another process starts the loader's for it, as Python's fork server
    does: the kernel tells of a parent's death only those that it started itself; for others a thread waits for it. A
    worker that was not forked has threads that some library started, and a scheduler's SIGTERM may reach those: fork,
    where the choice is free.

    Args:
        worker_id: what a DataLoader passes as it starts the process.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    # Python's handlers are not told who sent a signal, and the parent's SIGTERM must be obeyed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey, args=(parent.pid,), daemon=True, name="sigterm").start()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # a fork server started this process, or the parent died before the kernel was asked
        threading.Thread(target=_outlive, args=(parent.sentinel,), daemon=True, name="parent").start()


def _outlive(sentinel: int) -> None:
    """End with the training: its end of this pipe closes when it ends, however that comes."""
    wait([sentinel])
    os._exit(0)


def _obey(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)

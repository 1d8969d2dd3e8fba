"""Run a command that dies with the process that started it, however that ends: `python tether.py PARENT COMMAND ...`.

The kernel kills it (PR_SET_PDEATHSIG), also where its parent had no time to. Nothing is imported that takes time, since
every trial begins with this.
"""

import os
import sys

PR_SET_PDEATHSIG, SIGKILL = 1, 9


def words(command: list[str]) -> list[str]:
    """The command line of a command that is to die with this process.

    Args:
        command: its own words, a path first.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(parent: int, command: list[str]) -> None:
    """Become the command.

    Args:
        parent: process id of the one that started this; if that is gone already, nothing is run.
        command: the words.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

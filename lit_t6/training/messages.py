"""What is said while a training runs: not worth the training, where it goes into a file whose disk is full."""

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Print a line at once, if that can be.

    Args:
        text: of the line, without its end.
    """
    with suppress(OSError):
        print(text, flush=True)


def warn(text: str) -> None:
    """Print a warning to the standard error, if that can be.

    Args:
        text: of the warning; "warning: " is put before it.
    """
    with suppress(OSError):
        print(f"warning: {text}", file=sys.stderr, flush=True)


def counted(number: int, thing: str) -> str:
    """Such as "1 layer" and "2 layers".

    Args:
        number: how many.
        thing: the name of one.
    """
    return f"{number} {thing}{'s' * (number != 1)}"

"""Words of command lines that programs of this folder read alike."""

import argparse


def positive(word: str) -> int:
    """A number from 1 on.

    Args:
        word: as typed.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r}, expected a number from 1 on")
    return int(word)

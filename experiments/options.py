"""The command lines of the programs in this folder, which explain themselves alike."""

import argparse
import math
import sys
import time
from pathlib import Path

import torch

from lit_t6.bench.facts import check_device


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows what is taken where nothing is typed."""

    def _get_help_string(self, action: argparse.Action) -> str:
        said, default = action.help or "", action.default
        if "(default" in said or default is None or default is False or default == argparse.SUPPRESS:
            return said
        typed = default if isinstance(default, list) else [default]
        return f"{said} (default: {' '.join(map(str, typed)).replace('%', '%%')})"


def parser_for(module: str, description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser of the options of a program, whose help shows how it is started and all defaults.

    Args:
        module: that Python runs.
        description: the program's docstring.
        epilog: said after the options.
    """
    name = f"python -m {module}"
    return argparse.ArgumentParser(prog=name, description=description, epilog=epilog, formatter_class=_Help)


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


def seconds(word: str) -> float:
    """A time above 0.

    Args:
        word: as typed.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{word!r}, expected seconds, more than 0")
    return number


def add_device(parser: argparse.ArgumentParser, about: str = "where: cuda, cuda:1 … or cpu") -> None:
    """Add --device: the GPU where there is one, and the CPU elsewhere.

    Args:
        parser: to add it to.
        about: its help.
    """

    def device(word: str) -> str:
        try:
            check_device(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return word

    there = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=there, help=about)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add --seed: one by the clock, unless it is typed.

    Args:
        parser: to add it to.
    """
    what = "of random numbers (default: by the clock; it is written down)"
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help=what)


def warn_of_cpu(device: str, tokens: int, small: str) -> None:
    """Say beforehand that something takes long, if it does.

    Args:
        device: where it is to run.
        tokens: of a step.
        small: options that show how it goes.
    """
    if torch.device(device).type == "cpu" and tokens > 512:
        print(f"On a CPU this takes long; to see how it goes: {small}", file=sys.stderr, flush=True)


def make_folder(parser: argparse.ArgumentParser, output: Path) -> Path:
    """The folder of --output, made where it is missing; the program ends if it cannot be.

    Args:
        parser: that says so.
        output: as typed.
    """
    folder = output.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {output}: no such folder can be made: {error.strerror}.")
    return folder

"""The command lines of the programs in this folder, which explain themselves alike."""

import argparse


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

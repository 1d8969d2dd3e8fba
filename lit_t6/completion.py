"""A script with which a shell completes our command line."""

import argparse
import re
from collections.abc import Mapping

from jsonargparse import ArgumentParser

from lit_t6.attention import short_names
from lit_t6.command_line.parsing import option_keys

FILES = ("config", "base", "ckpt_path", "tokenizer", "output", "prompts_file", "upstream")
"""Options, besides those that end in "path", whose values are files."""
_REGISTERED = {"bash": r"^(complete .* lit-t6)$", "zsh": r"^(#compdef lit-t6| *compdef .* lit-t6)$"}
"""Where a script says what it completes."""


def completion_script(shell: str, commands: Mapping[str, ArgumentParser]) -> str:
    """The script, for commands, options, mechanisms and files; of `lit-t6`, in bash and zsh also of `./cli.py`.

    Args:
        shell: bash, zsh or tcsh.
        commands: the parser of every command; of one in a group, under "GROUP COMMAND".

    Raises:
        ValueError: the package `shtab` is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ValueError("completion needs the package shtab: pip install 'lit-t6[completion]'.") from error
    whole = argparse.ArgumentParser(prog="lit-t6")
    groups = {"": whole.add_subparsers()}
    for command, parser in commands.items():
        group, _, name = command.rpartition(" ")
        if group not in groups:
            groups[group] = groups[""].add_parser(group, add_help=False, help=group).add_subparsers()
        words = groups[group].add_parser(name, add_help=False, help=command)  # shtab hides those without help
        for key in option_keys(parser):
            choices = sorted(short_names()) if key == "model.attention" else None
            action = words.add_argument(f"--{key}", choices=choices)
            if key in FILES or key.endswith("path"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # how shtab is told
    script = re.sub(
        r"^# Usage:\n(#.*\n)+",
        "# `lit-t6 completion --help` says where it goes.\n",
        shtab.complete(whole, shell),
        flags=re.M,
    )
    return re.sub(_REGISTERED[shell], r"\1 cli.py", script, flags=re.M) if shell in _REGISTERED else script

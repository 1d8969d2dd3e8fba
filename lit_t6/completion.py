"""A script with which a shell completes our command line."""

import argparse
from collections.abc import Mapping

from jsonargparse import ArgumentParser

from lit_t6.attention import short_names
from lit_t6.command_line.parsing import option_keys

FILES = ("config", "base", "ckpt_path", "tokenizer", "output", "prompts_file", "upstream")
"""Options, besides those that end in "path", whose values are files."""


def completion_script(shell: str, commands: Mapping[str, ArgumentParser]) -> str:
    """The script, for commands, options, mechanisms and files.

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
    return str(shtab.complete(whole, shell))

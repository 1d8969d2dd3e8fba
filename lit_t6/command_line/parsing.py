"""Parsers of command lines and YAML files: how they are made, and what they make of words."""

import argparse
import os
import re
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, get_loader, set_loader

from lit_t6.command_line.complaints import YAML_SUFFIXES, explain, file_for_a_mechanism, no_file
from lit_t6.command_line.trainers import PURPOSES

PROGRAM = "python cli.py"
"""What a command is typed after."""
PARSER_MODE = "yaml_with_short_names"
"""Mode of a jsonargparse parser whose YAML files may say `attention: MQA`."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves descriptions and examples as they are written."""


def parser_settings(command: str, examples: str = "") -> dict[str, Any]:
    """Arguments of the parser of a trainer's command.

    Args:
        command: its name.
        examples: shown at the end of its help.
    """
    return {
        "allow_abbrev": False,  # --trainer.max_step would be taken as max_steps, silently
        "exit_on_error": False,  # errors come as exceptions, to be told in one line
        "parser_mode": PARSER_MODE,
        "prog": f"{PROGRAM} {command}",
        "usage": f"{PROGRAM} {command} [--config FILE ...] [--ckpt_path FILE] [--dotted.option VALUE ...]",
        "description": PURPOSES.get(command, ""),
        "epilog": examples,
        "formatter_class": HelpFormatter,
    }


def option_keys(parser: ArgumentParser) -> Iterator[str]:
    """The keys of a parser's options, such as "model.d_model"."""
    for action in parser._actions:
        yield from (option.removeprefix("--") for option in action.option_strings if option.startswith("--"))


def parse(parser: ArgumentParser, options: Sequence[str], subparser: ArgumentParser | None = None) -> Namespace:
    """What a parser makes of some words.

    Args:
        parser: made with `exit_on_error=False`.
        options: the words, arranged.
        subparser: that of the command, if `options` begins with one.

    Raises:
        ValueError: what the parser refuses, in one line.
    """
    own = subparser or parser
    check_files(options, {key.partition(".")[0] for key in option_keys(own) if "." in key})
    try:
        return parser.parse_args(list(options))
    except argparse.ArgumentError as error:
        message = str(error)
        raise ValueError(_missing(message, own) or explain(message, option_keys(own))) from error


def _missing(message: str, parser: ArgumentParser) -> str:
    """Which options are needed and were not given, spelt as they are typed."""
    required = re.search(r"the following arguments are required: (.*)", message)
    if not required:
        return ""
    spelt = {action.dest: _spelling(action) for action in parser._actions}
    words = ", ".join(spelt.get(name, name) for name in required[1].split(", "))
    command = parser.prog.removeprefix(f"{PROGRAM} ")
    return f"{command} needs {words}; `{parser.prog} --help` explains."


def _spelling(action: argparse.Action) -> str:
    if not action.option_strings:
        return action.dest.upper()
    choices = f" {'|'.join(map(str, action.choices))}" if action.choices else ""
    return action.option_strings[-1] + choices


def check_files(options: Sequence[str], sections: Container[str]) -> None:
    """Look at the files that are named before a parser does, which would not say which one is wrong.

    Args:
        options: the words, arranged.
        sections: keys with settings below them, such as "model".

    Raises:
        ValueError: a folder, a file that is not YAML, or one without options.
    """
    for option, value in pairwise(options):
        if option == "--model.attention" and value.endswith(YAML_SUFFIXES) and Path(value).is_file():
            if "class_path" not in _read(value):
                raise ValueError(file_for_a_mechanism(value))
        elif option == "--config" and "\n" not in value and Path(value).exists():  # what is no file may be YAML itself
            for key, settings in _read(value).items():
                if key in sections and not isinstance(settings, dict | str):
                    raise ValueError(f"{value}: {key}: expected settings below it, found {settings!r}.")


def check_that_files_are_there(options: Sequence[str]) -> None:
    """Look for the files of --config before all is loaded that a parser of a training needs, which takes seconds.

    Args:
        options: the words, arranged.

    Raises:
        ValueError: a file that is not there.
    """
    for option, value in pairwise(options):
        if option != "--config" or not value.endswith(YAML_SUFFIXES) or "\n" in value or "://" in value:
            continue  # YAML itself, or an address, which the parser opens
        if not os.path.exists(os.path.expanduser(value)):
            raise ValueError(no_file(value))


def _read(path: str) -> dict[str, Any]:
    if Path(path).is_dir():
        inside = sorted(Path(path).rglob("*.y*ml"))
        such = f", such as {inside[0]}" if inside else ""
        raise ValueError(f"{path}: is a folder; expected a YAML file{such}.")
    with yaml_errors(path):
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        found = "nothing" if loaded is None else repr(loaded)[:60]
        raise ValueError(f"{path}: expected options, such as `model:` with settings below it, found {found}.")
    return loaded


@contextmanager
def yaml_errors(path: str | Path) -> Iterator[None]:
    """What is wrong with a YAML file that is read within this, in one line.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no text, or broken, and where.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a YAML file: it is not text ({error.reason}).") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise ValueError(f"{path}{line}: broken YAML: {what}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: broken YAML: {' '.join(str(error).split())}.") from error


def load_yaml(text: str) -> Any:
    """Read YAML as jsonargparse does, and spell out a mechanism that is given by its short name.

    Both `attention: MQA` and `attention: {class_path: MQA, init_args: {…}}` are read.
    """
    loaded = get_loader("yaml")(text)
    model = loaded.get("model") if isinstance(loaded, dict) else None
    if isinstance(model, dict) and "attention" in model:
        from lit_t6.attention import short_names  # PyTorch is loaded for files that name one

        given = model["attention"]
        given = {"class_path": given} if isinstance(given, str) else given
        known = short_names().get(str(given.get("class_path"))) if isinstance(given, dict) else None
        if known:
            settings = {**known.init_args, **(given.get("init_args") or {})}
            model["attention"] = {"class_path": known.class_path, "init_args": settings}
    return loaded


set_loader(PARSER_MODE, load_yaml, exceptions=(yaml.YAMLError,))

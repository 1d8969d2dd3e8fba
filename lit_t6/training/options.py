"""What a person types, words and YAML files, made ready for the parser; and the parser's errors, made clear."""

import argparse
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, get_loader, set_loader

import lit_t6.attention as attention
from lit_t6.attention import short_names

_OF_THE_MECHANISM = ("--model.attention", "--model.attention.class_path", "--model.attention.help")
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
    purposes = {
        "fit": "Train a model. Configuration files stack, later ones win, and every option below can be typed.",
        "validate": "Loss, perplexity and bits per byte of a checkpoint on the validation split.",
        "test": "Loss, perplexity and bits per byte of a checkpoint on the test split.",
        "predict": "Loss and bits per byte of every document, as JSON lines (predictions.path).",
    }
    return {
        "allow_abbrev": False,  # --trainer.max_step would be taken as max_steps, silently
        "exit_on_error": False,  # errors come as exceptions, to be told in one line
        "parser_mode": PARSER_MODE,
        "usage": f"python cli.py {command} [--config FILE ...] [--ckpt_path FILE] [--dotted.option VALUE ...]",
        "description": purposes.get(command, ""),
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
    try:
        return parser.parse_args(list(options))
    except argparse.ArgumentError as error:
        raise ValueError(explain(str(error), option_keys(subparser or parser))) from error


def arrange(options: Sequence[str]) -> list[str]:
    """Put the words of a command line into the order in which they must be parsed.

    Every `--config FILE` comes first, in order; then the mechanism, spelt out if it was typed by its short name
    (`--model.attention MQA`), since its class decides which settings there are; then all other options. So an option
    holds wherever it stands.
    """
    configs: list[str] = []
    mechanism: list[str] = []
    others: list[str] = []
    rest = iter(options)
    for option in rest:
        name, equals, value = option.partition("=")
        if name not in ("-c", "--config", *_OF_THE_MECHANISM):
            others.append(option)
            continue
        value = value if equals else next(rest, "")
        if not value:
            raise ValueError(f"{name} needs a value.")
        if name in ("-c", "--config"):
            configs += ["--config", value]
        elif name == "--model.attention.help":
            mechanism = [name, short_names()[value].class_path if value in short_names() else value]
        else:
            mechanism = _mechanism_options(value)
    return configs + mechanism + others


def _mechanism_options(name: str) -> list[str]:
    """The options that a mechanism's name stands for."""
    known = short_names().get(name)
    if known is None:
        return ["--model.attention", name]
    settings = [
        (f"--model.attention.{key}", "null" if value is None else str(value)) for key, value in known.init_args.items()
    ]
    return ["--model.attention", known.class_path, *(word for setting in settings for word in setting)]


def take_options(options: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """Words about one thing, and the others.

    Args:
        options: as typed.
        name: such as "--model": the options of that name and those below it, --model.KEY, are taken.

    Returns:
        The options taken, each as one word --KEY=VALUE, and the rest as it was.

    Raises:
        ValueError: an option without a value.
    """
    taken: list[str] = []
    others: list[str] = []
    rest = iter(options)
    for option in rest:
        key, equals, value = option.partition("=")
        if key != name and not key.startswith(f"{name}."):
            others.append(option)
            continue
        value = value if equals else next(rest, "")
        if not value:
            raise ValueError(f"{key} needs a value.")
        taken.append(f"{key}={value}")
    return taken, others


def join_lists(options: Sequence[str], names: Sequence[str]) -> list[str]:
    """Make one word of each list that was typed.

    Args:
        options: as typed; the values of a list may be words of their own, joined by commas, or in brackets.
        names: of the options that are lists, without dashes.

    Returns:
        The options, such lists as --NAME=[A,B].

    Raises:
        ValueError: a list without a value.
    """
    joined: list[str] = []
    rest = list(options)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name.removeprefix("--") not in names or not name.startswith("--"):
            joined.append(name + equals + value)
            continue
        values = [value] if equals else []
        while not equals and rest and not rest[0].startswith("-"):
            values.append(rest.pop(0))
        if not any(values):
            raise ValueError(f"{name} needs a value.")
        joined.append(f"{name}=[{','.join(value.strip(' []') for value in values)}]")
    return joined


def option_value(options: Sequence[str], name: str) -> str | None:
    """What was typed for an option; the last word counts."""
    value = None
    for option, following in zip_longest(options, options[1:]):
        if option == name:
            value = following
        elif option.startswith(name + "="):
            value = option.removeprefix(name + "=")
    return value


def load_yaml(text: str) -> Any:
    """Read YAML as jsonargparse does, and spell out a mechanism that is given by its short name.

    Both `attention: MQA` and `attention: {class_path: MQA, init_args: {…}}` are read.
    """
    loaded = get_loader("yaml")(text)
    model = loaded.get("model") if isinstance(loaded, dict) else None
    if isinstance(model, dict) and "attention" in model:
        given = model["attention"]
        given = {"class_path": given} if isinstance(given, str) else given
        known = short_names().get(str(given.get("class_path"))) if isinstance(given, dict) else None
        if known:
            settings = {**known.init_args, **(given.get("init_args") or {})}
            model["attention"] = {"class_path": known.class_path, "init_args": settings}
    return loaded


set_loader(PARSER_MODE, load_yaml, exceptions=(yaml.YAMLError,))


def explain(message: str, known: Iterable[str]) -> str:
    """A parser's complaint as one clear line, with the nearest right name where one is wrong.

    Args:
        message: of the parser.
        known: the keys of all options, such as "model.d_model".
    """
    unknown = re.search(r"does not accept option '([^']+)'|unrecognized arguments: (\S+)", message)
    if unknown:
        key = unknown[1] or unknown[2]
        if key.startswith("--") or unknown[1]:
            return f"there is no option {key.partition('=')[0]}{nearest(key.partition('=')[0], known)}"
        return f"{key!r} is not an option: options start with --, as in --model.d_model 256."
    setting = re.search(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted", message)
    if setting:
        owner: Any = getattr(attention, setting[1].removeprefix("lit_t6.attention."), None)
        names = list(inspect.signature(owner).parameters) if owner else []
        expected = f" It has {', '.join(names)}." if names else ""
        return f"{setting[1].rpartition('.')[2]} has no setting {setting[2]!r}{nearest(setting[2], names)}{expected}"
    wrong_class = re.search(
        r'key "model.attention"(?s:.*?)(?:class_path \'([^\']+)\':\s+\w+|import path string: (\S+))', message
    )
    if wrong_class:
        value = wrong_class[1] or wrong_class[2]
        classes = [m.__name__ for m in attention.mechanisms()]
        if value.rpartition(".")[2] not in classes:
            names = sorted(short_names()) + classes
            near = nearest(value.rpartition(".")[2], names)
            return f"model.attention: {value!r} is not a mechanism{near} There are {', '.join(names)}."
    keys = re.findall(r'[Kk]ey "([^"]+)"', message)
    unknown_class = re.search(r"import path string: (\S+)|has no attribute '(\w+)'", message)
    if keys and unknown_class:
        name = unknown_class[1] or unknown_class[2]
        return f"{keys[0]}: {name!r} is not known{nearest(name, _lightning_classes())}"
    choices = re.findall(r"'([^']+)'", " ".join(re.findall(r"Literal\[([^\]]+)\]", message)))
    given = re.search(r"G(?:iven|ot) value: (.*)", message)
    if keys and choices and given:
        values = ", ".join(dict.fromkeys(choices))
        return f"{keys[0]}: {given[1]!r} is not one of its values{nearest(given[1], choices)} There are {values}."
    wrong_type = re.search(r"Expected an? <class '(\w+)'>\. Got value: (.*)", message)
    if wrong_type and keys:
        return f"{'.'.join(keys)}: expected {wrong_type[1]}, got {wrong_type[2]!r}."
    missing = re.search(r"File does not exist: '([^']+)'", message)
    if missing:
        return f"{missing[1]}: no such configuration file."
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def _lightning_classes() -> list[str]:
    """Classes that a configuration may name: callbacks, loggers, profilers, strategies."""
    from lightning.pytorch import callbacks, loggers, profilers, strategies

    return [name for module in (callbacks, loggers, profilers, strategies) for name in module.__all__]


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of a wrong name: "; did you mean …?" with the nearest known one, or a full stop."""
    dashes = "--" if name.startswith("--") else ""
    bare = name.removeprefix("--")
    keys = list(known)
    last_parts = {key.rpartition(".")[2]: key for key in keys}
    same_but_case = [key for key in keys if key.lower() == bare.lower()]
    close = [last_parts[bare]] if bare in last_parts else same_but_case[:1]
    close = close or difflib.get_close_matches(bare, keys, n=1, cutoff=0.6)
    if not close:  # the last part alone may be nearly right
        close = [
            last_parts[n] for n in difflib.get_close_matches(bare.rpartition(".")[2], last_parts, n=1, cutoff=0.75)
        ]
    return f"; did you mean {dashes}{close[0]}?" if close else "."

"""What a person types, words of a command line, put into the order in which a parser must see them."""

from collections.abc import Sequence
from itertools import zip_longest

from lit_t6.command_line.strategies import strategy_named

_STRATEGY = "--trainer.strategy"
_OF_THE_MECHANISM = ("--model.attention", "--model.attention.class_path", "--model.attention.help")


def arrange(options: Sequence[str]) -> list[str]:
    """Put the words of a command line into the order in which they must be parsed.

    Every `--config FILE` comes first, in order; then the mechanism, spelt out if it was typed by its short name
    (`--model.attention MQA`), since its class decides which settings there are; then all other options. So an option
    holds wherever it stands. So does the strategy's name (`--trainer.strategy ddp`), whose class decides likewise.

    Raises:
        ValueError: an option without a value, or a strategy that there is not.
    """
    configs: list[str] = []
    mechanism: list[str] = []
    strategy: list[str] = []
    others: list[str] = []
    rest = iter(options)
    for option in rest:
        name, equals, value = option.partition("=")
        if name not in ("-c", "--config", _STRATEGY, *_OF_THE_MECHANISM):
            others.append(option)
            continue
        value = value if equals else next(rest, "")
        if not value:
            raise ValueError(f"{name} needs a value.")
        if name in ("-c", "--config"):
            configs += ["--config", value]
        elif name == _STRATEGY:
            has_options = any(word.startswith(f"{_STRATEGY}.") for word in options)
            strategy = [name, strategy_named(value, has_options)]
        elif name == "--model.attention.help":
            mechanism = [name, _class_path(value)]
        else:
            mechanism = _mechanism_options(value)
    return configs + mechanism + strategy + others


def _class_path(name: str) -> str:
    from lit_t6.attention import short_names

    known = short_names().get(name)
    return name if known is None else known.class_path


def _mechanism_options(name: str) -> list[str]:
    """The options that a mechanism's name stands for."""
    from lit_t6.attention import short_names  # PyTorch is loaded for those who type one

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

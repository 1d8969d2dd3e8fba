"""Commands whose options are the arguments of a function."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from lit_t6.command_help import EXAMPLES


def chosen(
    commands: Mapping[str, Callable[[list[str]], Any]], arguments: list[str], kind: str, unnamed: str, overview: str
) -> Any:
    """Run the one of a group of commands that is named.

    Args:
        commands: of the group, by name.
        arguments: a name and the command's own.
        kind: what a command of the group is called.
        unnamed: what to tell where none is named.
        overview: of the group, for `--help`.

    Raises:
        ValueError: there is no such command, or none is named.
        SystemExit: after help.
    """
    from lit_t6.command_line.complaints import nearest

    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        print(overview, end="")
        raise SystemExit(0)
    if name not in commands:
        what = f"there is no {kind} {name!r}{nearest(name, commands)}" if name else unnamed
        raise ValueError(f"{what} There are {', '.join(commands)}.")
    return commands[name](arguments[1:])


def function_parser(
    name: str, function: Callable[..., Any], skip: set[str | int] | None = None, config: bool = True
) -> Any:
    """A parser whose options and help are the function's own arguments and docstring.

    Args:
        name: of the command, which has examples in `command_help`.
        function: that the command calls.
        skip: arguments that are no options.
        config: whether a YAML file may bring the options.
    """
    from jsonargparse import ArgumentParser

    from lit_t6.command_line.parsing import PROGRAM, HelpFormatter

    parser = ArgumentParser(
        prog=f"{PROGRAM} {name}",
        description=(function.__doc__ or "").split("\n    Args:")[0],
        epilog=f"examples:\n{EXAMPLES[name]}",
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    if config:
        parser.add_argument("-c", "--config", action="config", help="YAML file with any of the options")
    parser.add_function_arguments(function, skip=skip, as_positional=name == "completion")
    return parser


def given(parser: Any, arguments: list[str], left_out: Collection[str] = ("config",)) -> dict[str, Any]:
    """What was typed, by option.

    Args:
        parser: from `function_parser`.
        arguments: words after the command.
        left_out: options that are not for the function.

    Raises:
        ValueError: what the parser refuses.
    """
    from lit_t6.command_line.options import arrange
    from lit_t6.command_line.parsing import parse

    options = parse(parser, arrange(arguments)).as_dict()
    return {name: value for name, value in options.items() if name not in left_out}

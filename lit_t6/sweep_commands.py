"""`python cli.py sweep run | status | report | pack`: their options, joined to the functions of `lit_t6.sweeps`."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from itertools import takewhile
from typing import Any

from lit_t6.command_help import SWEEP_OVERVIEW
from lit_t6.function_options import chosen, function_parser, given


def sweep(arguments: list[str]) -> Any:
    """`python cli.py sweep` and what comes after it.

    Args:
        arguments: what to do, and its options.

    Raises:
        ValueError: an error of the user's.
    """
    unnamed = "sweep: runs an ablation study, which needs to know what to do."
    return chosen(SWEEPS, arguments, "sweep", unnamed, SWEEP_OVERVIEW)


def _sweep_command(name: str, arguments: list[str]) -> Any:
    from argparse import SUPPRESS

    from docstring_parser import parse

    from lit_t6.command_line.options import take_options
    from lit_t6.sweeps import commands, typed_settings
    from lit_t6.sweeps.study import KEYS, Study

    if name == "report":  # matplotlib is loaded for those who draw
        from lit_t6.sweeps.report import sweep_report as function
    else:
        function = getattr(commands, f"sweep_{name}")
    settings: list[str] = []
    _check_seeds(arguments)
    others = [_with_underscores(word) for word in arguments]
    for word in others:
        if word.startswith("--") and "." in (option := word.partition("=")[0]) and option[2:].split(".")[0] not in KEYS:
            raise ValueError(f"there is no option {option}; did you mean --options.{option[2:]}?")
    for key in KEYS:
        taken, others = take_options(others, f"--{key}")
        settings += taken
    parser = function_parser(f"sweep {name}", function, skip={"study", "overrides", "from_archive"}, config=False)
    parser.add_argument(
        "study", nargs="*", help="its YAML file, several that stack, or the folder of one that was begun"
    )
    if name in FROM_ARCHIVE:
        parser.add_argument("--from", metavar="ARCHIVE", help=f"{FROM_ARCHIVE[name]} in this file, from `sweep pack`")
    # For the help, completion and the names of options: what was typed of them is in `settings`.
    group = parser.add_argument_group(
        "settings of the study, over those of its file",
        "Parts of them too: --options.model.d_model 256. configs/sweep/rank.yaml has them all.",
    )
    told = {param.arg_name: param.description for param in parse(Study.__doc__ or "").params}
    for key in KEYS:
        group.add_argument(f"--{key}", metavar="VALUE", default=SUPPRESS, help=told[key])
    try:
        options = given(parser, others)
    except ValueError as error:
        raise ValueError(_of_options(str(error), function)) from error
    archive = {"from_archive": options.pop("from")} if name in FROM_ARCHIVE else {}
    return function(options.pop("study"), typed_settings(settings), **archive, **options)


def _with_underscores(word: str) -> str:
    """An option as it is spelt here, where a person typed dashes, as in --workers-per-gpu."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else word


def _check_seeds(words: Sequence[str]) -> None:
    """Refuse seeds that are words of their own: all but the first would be taken for studies."""
    for place, word in enumerate(words):
        if word == "--seeds":
            seeds = list(takewhile(lambda word: re.fullmatch(r"[\d,]+", word), words[place + 1 :]))
            if len(seeds) > 1:
                joined = ",".join(seed.strip(",") for seed in seeds)
                raise ValueError(f"--seeds {' '.join(seeds)}: is one word, with commas: --seeds {joined}.")


def _of_options(complaint: str, function: Callable[..., Any]) -> str:
    """A parser's complaint about the value of an option, told of the option that was typed."""
    flags = [name for name, argument in signature(function).parameters.items() if isinstance(argument.default, bool)]
    if (alone := re.fullmatch(r"--(\w+) needs a value\.", complaint)) and alone[1] in flags:
        return f"--{alone[1]} needs a value: say `--{alone[1]} true`."
    wrong = re.fullmatch(r"(\w+): expected ([\w ]+), got (.*)\.", complaint)
    if wrong is None:
        return complaint
    option, types, value = wrong.groups()
    if option in flags:
        return f"--{option}: expected true or false, got {value}; say `--{option} true`."
    expected = next((name for kind, name in _NUMBERS.items() if kind in types.split(" or ")), types)
    return f"--{option}: expected {expected}, got {value}."


_NUMBERS = {"int": "a whole number", "float": "a number"}
SWEEPS: dict[str, Callable[[list[str]], Any]] = {
    name: partial(_sweep_command, name) for name in ("run", "status", "report", "pack")
}
FROM_ARCHIVE = {"run": "go on with the study", "report": "report on the study"}

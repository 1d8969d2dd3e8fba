"""The errors of parsers, made clear: one line, with the nearest right name where one is wrong."""

import difflib
import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lit_t6.command_line.trainers import has_transformer_engine

YAML_SUFFIXES = (".yaml", ".yml")
_FEW = 12
"""Names listed at most where they are many."""
_PRECISIONS = {
    **dict.fromkeys(("fp16", "float16", "half", "fp16-mixed", "amp"), "16-mixed"),
    **dict.fromkeys(("bfloat16", "bfloat16-mixed"), "bf16-mixed"),
    **dict.fromkeys(("fp32", "float32", "float", "single"), "32-true"),
    **dict.fromkeys(("fp64", "float64", "double"), "64-true"),
}
"""What people call the precisions of Lightning's trainer, whose letters are nearer to another."""


def explain(message: str, known: Iterable[str]) -> str:
    """A parser's complaint as one clear line, with the nearest right name where one is wrong.

    Args:
        message: of the parser.
        known: the keys of all options, such as "model.d_model".
    """
    keys = list(known)
    for explanation in _EXPLANATIONS:
        if said := explanation(message, keys):
            return said
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def _unknown_option(message: str, known: Sequence[str]) -> str:
    unknown = re.search(
        r"does not accept option '([^']+)'|^Option '([^']+)' is not accepted|unrecognized arguments: (\S+)", message
    )
    if not unknown:
        return ""
    key = (unknown[1] or unknown[2] or unknown[3]).partition("=")[0]
    if unknown[3] and not key.startswith("--"):
        if option := _option_for_file(unknown[3], known):
            return f"{unknown[3]!r} is not an option; did you mean {option} {unknown[3]}?"
        if "prompt" in known:
            return f'{unknown[3]!r} is not an option: quote a prompt of several words, as in --prompt "It was".'
        return f"{unknown[3]!r} is not an option: options start with --, as in --model.d_model 256."
    return f"there is no option {key}{nearest(key, known)}"


def _option_for_file(word: str, known: Sequence[str]) -> str:
    """The option that takes a file like this one; empty where the word is no file, or none does."""
    path = Path(word)
    if path.suffix not in (".ckpt", *YAML_SUFFIXES) and not path.is_file():
        return ""
    if path.suffix in YAML_SUFFIXES:
        options = ["config"]
    else:
        options = ["prompts_file"] if path.suffix in (".txt", ".jsonl", ".ndjson") else []
        options.append("ckpt_path")
    return next((f"--{option}" for option in options if option in known), "")


def _without_value(message: str, known: Sequence[str]) -> str:
    option = re.search(r"argument (?:-\w/)?(--[^\s:]+): expected (?:one|at least one) argument", message)
    return f"{option[1]} needs a value." if option else ""


def _unknown_setting(message: str, known: Sequence[str]) -> str:
    setting = re.search(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted", message)
    if not setting:
        return ""
    import pydoc  # takes as long to load as the rest of a light command

    owner = pydoc.locate(setting[1])
    names = list(inspect.signature(owner).parameters) if callable(owner) else []
    expected = f" It has {', '.join(names)}." if names else ""
    return f"{setting[1].rpartition('.')[2]} has no setting {setting[2]!r}{nearest(setting[2], names)}{expected}"


_UNKNOWN_CLASS = (
    r"import path string: (\S+)|has no attribute '(\w+)'|[Ii]mport path (\S+) does not|import path format: (\S+)"
)


def _unknown_mechanism(message: str, known: Sequence[str]) -> str:
    about = r'(?:key "model.attention"|--model.attention.help:)(?s:.*?)'
    wrong = re.search(rf"{about}(?:class_path '([^']+)':\s+\w+|{_UNKNOWN_CLASS})", message)
    if not wrong:
        return ""
    from lit_t6.attention import mechanisms, short_names  # PyTorch is loaded where a mechanism was named

    value = next(filter(None, wrong.groups()))
    classes = [mechanism.__name__ for mechanism in mechanisms()]
    if wrong[1] and value.rpartition(".")[2] in classes:
        return ""  # it is one of its settings that is wrong
    names = sorted(short_names()) + classes
    if value.endswith(YAML_SUFFIXES):
        return file_for_a_mechanism(value)
    near = nearest(value.rpartition(".")[2], names)
    return f"model.attention: {value!r} is not a mechanism{near} There are {', '.join(names)}."


def file_for_a_mechanism(path: str) -> str:
    """What to say of a file of options that was given as the mechanism."""
    from lit_t6.attention import short_names

    return (
        f"model.attention: expected a mechanism, such as {', '.join(sorted(short_names()))}, got the file {path}. "
        f"If it holds options, pass it as --config {path}."
    )


def _unknown_class(message: str, known: Sequence[str]) -> str:
    from lit_t6.command_line.strategies import NAMES as STRATEGIES  # which speaks through this module

    key = re.search(r'[Kk]ey "([^"]+)"|^--(\S+)\.help:', message)
    unknown = re.search(_UNKNOWN_CLASS, message)
    if not key or not unknown:
        return ""
    option, name = key[1] or key[2], next(filter(None, unknown.groups()))
    if option == "trainer.strategy" and name in STRATEGIES:  # of a file; a typed one is a class by now
        return f"{option}: its options need the name typed too, such as --trainer.strategy ddp, or a class in the file."
    names = _lightning_classes(option)
    near = nearest(name, names)
    expected = f" Expected a class by its name or import path. There are {', '.join(names)}." if near == "." else ""
    return f"{option}: {name!r} is not known{near}{expected}"


def _lightning_classes(option: str) -> list[str]:
    """Classes that an option may name."""
    from lightning.pytorch import callbacks, loggers, profilers, strategies

    modules = {"callbacks": callbacks, "logger": loggers, "profiler": profilers, "strategy": strategies}
    kind = option.removeprefix("trainer.").partition(".")[0]
    chosen = [modules[kind]] if kind in modules else list(modules.values())
    return [name for module in chosen for name in module.__all__ if not name.startswith("Base")]


def _key_and_value(message: str) -> tuple[str, str] | None:
    """The full key of an option and the value that it cannot have."""
    keys = re.findall(r'[Kk]ey "([^"]+)"', message)
    given = re.search(r"G(?:iven|ot) value: (.*)", message)
    return (".".join(dict.fromkeys(keys)), given[1]) if keys and given else None


def _wrong_choice(message: str, known: Sequence[str]) -> str:
    typed = re.search(r"argument (--[^\s:]+): invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if typed:
        option, value, choices = typed[1], typed[2], re.findall(r"[^\s',]+", typed[3])
    else:
        found = _key_and_value(message)
        choices = re.findall(r"'([^']+)'", " ".join(re.findall(r"Literal\[([^\]]+)\]", message)))
        if not found or not choices:
            return ""
        option, value = found
        if not has_transformer_engine():
            choices = [choice for choice in choices if not choice.startswith("transformer-engine")]
    values = ", ".join(dict.fromkeys(choices))
    meant = _PRECISIONS.get(value.lower(), value)
    near = f"; did you mean {meant}?" if meant != value and meant in choices else nearest(value, choices)
    return f"{option}: {value!r} is not one of its values{near} There are {values}."


def _wrong_type(message: str, known: Sequence[str]) -> str:
    found = _key_and_value(message)
    types = re.findall(r"Expected an? (?:<class ')?(?:\w+\.)*(\w[^'\s.]*)", message)
    if not found or not types:
        return ""
    names = [{"NoneType": "null", "bool": "true or false"}.get(name, name) for name in dict.fromkeys(types)]
    return f"{found[0]}: expected {' or '.join(names)}, got {found[1]!r}."


def _wrong_section(message: str, known: Sequence[str]) -> str:
    """A value for an option that only has options below it, as in `--model.optimizer AdamW`."""
    wrong = re.search(r'key "([^"]+)":\s+Unable to load config [\'"](.*)[\'"]', message)
    if not wrong:
        return ""
    below = [f"--{key}" for key in known if key.startswith(f"{wrong[1]}.") and not key.endswith((".help", "+"))]
    few = ", ".join(below[:_FEW]) + (", …" if len(below) > _FEW else "")
    return (
        f"{wrong[1]}: expected a YAML file with its settings, got {wrong[2]!r}. Its settings are options of their own: "
        f"{few}."
    )


def _no_file(message: str, known: Sequence[str]) -> str:
    missing = re.search(r"File does not exist: '([^']+)'", message)
    return no_file(missing[1]) if missing else ""


def no_file(name: str) -> str:
    """What to say of a configuration file that is not there."""
    here = os.path.relpath(name)
    path = Path(name if here.startswith(os.pardir) else here)
    beside = {other.stem: other for other in path.parent.glob("[!.]*.y*ml")}
    near = difflib.get_close_matches(path.stem, beside, n=1)
    return f"{path}: no such configuration file{f'; did you mean {beside[near[0]]}?' if near else '.'}"


_EXPLANATIONS = (
    *(_unknown_option, _without_value, _unknown_setting, _unknown_mechanism, _unknown_class),
    *(_wrong_choice, _wrong_section, _wrong_type, _no_file),
)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of a wrong name: "; did you mean …?" with the nearest known one, or a full stop."""
    dashes = "--" if name.startswith("--") else ""
    bare = name.removeprefix("--")
    keys = list(known)
    last_parts = {key.rpartition(".")[2]: key for key in keys}
    same_but_case = [key for key in keys if key.lower() == bare.lower()]
    close = [last_parts[bare]] if bare in last_parts else same_but_case[:1]
    if not close:
        whole = _closest(bare, {key: key for key in keys}, 0.6)
        last = _closest(bare.rpartition(".")[2], last_parts, 0.75)  # the last part alone may be nearly right
        close = [key for _, key in sorted([*last, *whole], key=lambda found: -found[0])]
    return f"; did you mean {dashes}{close[0]}?" if close else "."


def _closest(name: str, keys: Mapping[str, str], cutoff: float) -> list[tuple[float, str]]:
    """The key whose name is most alike and how much, or nothing."""
    found = difflib.get_close_matches(name, keys, n=1, cutoff=cutoff)
    return [(difflib.SequenceMatcher(None, other, name).ratio(), keys[other]) for other in found]

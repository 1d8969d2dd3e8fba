"""Study files: YAML that stacks, with what is wrong in it said by file and key."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from lit_t6.command_line.complaints import nearest, no_file
from lit_t6.command_line.parsing import yaml_errors

MERGED = ("options", "objective", "retries")
"""Keys whose settings stack one by one, as options of `fit` do; of all others the last file's value holds."""
TYPED_BELOW = (*MERGED, "sampler", "pruner")
"""Keys whose settings can be typed one by one."""
KINDS = ("cells", "grid", "search")
"""What there is to vary; a file that says one of these replaces what earlier files say."""


_LISTS = ("seeds", "record", "configs")


@dataclass(frozen=True)
class Place:
    """A value of a study, and where it stands.

    Args:
        value: as YAML has it.
        key: such as "search.rank_q.low".
        source: the file, or the option that was typed.
    """

    value: Any
    key: str
    source: str

    def at(self, name: str) -> "Place":
        """The value below a key of this one; None where there is none."""
        return Place(self.mapping().get(name), f"{self.key}.{name}", self.source)

    def error(self, expected: str) -> ValueError:
        """What to raise of a wrong value."""
        shown = "nothing" if self.value is None else repr(self.value)
        return ValueError(f"{self.where}: expected {expected}, got {shown[:80]}.")

    @property
    def where(self) -> str:
        """What an error is said of: the key in its file, or the option that was typed."""
        return self.source if self.source == f"--{self.key}" else f"{self.source}: {self.key}"

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return Path(self.source).parent if Path(self.source).is_file() else Path()

    def known(self, names: Sequence[str]) -> "Place":
        """Itself, a mapping with no other keys than these.

        Raises:
            ValueError: no mapping, or a key too many.
        """
        for name in self.mapping():
            if name not in names:
                raise ValueError(
                    f"{self.where} has no setting {name!r}{nearest(name, names)} There are {', '.join(names)}."
                )
        return self

    def mapping(self, of: str = "settings below it") -> dict[str, Any]:
        """The value, which must be a mapping that is not empty, or be left out."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.error(of)
        return self.value

    def integer(self, default: int, least: int = 1) -> int:
        if self.value is None:
            return default
        if type(self.value) is not int or self.value < least:
            raise self.error(f"a whole number of at least {least}")
        return self.value

    def number(self) -> float:
        if type(self.value) not in (int, float) or not math.isfinite(self.value):
            raise self.error("a number")
        return self.value

    def text(self, default: str = "") -> str:
        if self.value is None:
            return default
        if not isinstance(self.value, str):
            raise self.error("a text")
        return self.value

    def flag(self) -> bool:
        if self.value is not None and not isinstance(self.value, bool):
            raise self.error("true or false")
        return bool(self.value)

    def choice(self, names: Sequence[str], default: str) -> str:
        if self.value is None:
            return default
        if self.value not in names:
            near = nearest(self.value, names) if isinstance(self.value, str) else "."
            raise ValueError(
                f"{self.where}: {self.value!r} is not one of its values{near} There are {', '.join(names)}."
            )
        return str(self.value)

    def listed(self, of: str, is_one: Callable[[Any], bool]) -> list[Any]:
        """The value as a list; of a single one, a list of that."""
        values = self.value if isinstance(self.value, list) else [] if self.value is None else [self.value]
        if not all(map(is_one, values)):
            raise self.error(of)
        return values

    def files(self) -> tuple[Path, ...]:
        """Configuration files, relative to the file that names them."""
        names = self.listed("configuration files", lambda name: isinstance(name, str))
        paths = [self.folder / os.path.expanduser(os.path.expandvars(name)) for name in names]
        for path in paths:
            if not path.is_file():
                raise ValueError(f"{self.where}: {no_file(str(path))}")
        return tuple(Path(os.path.abspath(path)) for path in paths)


def read_files(paths: Sequence[str | Path], overrides: Mapping[str, Any]) -> dict[str, Place]:
    """What files and typed options say, stacked: a later one wins.

    Args:
        paths: of the files.
        overrides: such as {"num_trials": 5, "options.trainer.max_steps": 100}.

    Returns:
        Each top-level key with its value and its source.

    Raises:
        ValueError: a file that is not there, or no YAML mapping.
    """
    if not paths:
        raise ValueError("a study needs a file, such as configs/sweep/rank.yaml.")
    layers = [(str(path), _read(Path(os.path.expanduser(path)))) for path in paths]
    for key, value in overrides.items():
        first, _, rest = key.partition(".")
        if rest and first not in TYPED_BELOW:
            raise ValueError(f"--{key}: only settings of {', '.join(TYPED_BELOW)} can be typed one by one.")
        layers.append((f"--{key}", {first: {rest: value} if rest else value}))
    found: dict[str, Place] = {}
    for source, layer in layers:
        said = [kind for kind in KINDS if kind in layer]
        if len(said) > 1:
            raise ValueError(f"{source}: has {' and '.join(said)}; a study varies one of {', '.join(KINDS)}.")
        for kind in KINDS if said else ():
            found.pop(kind, None)
        for key, value in layer.items():
            before = found[key].value if key in found else None
            typed_below = source.startswith("--") and "." in source
            if key in ("sampler", "pruner") and isinstance(before, str):
                before = {"name": before}
            if isinstance(value, dict) and isinstance(before, dict) and (key in MERGED or typed_below):
                value = {**{name: said for name, said in before.items() if name not in value}, **value}
            found[key] = Place(value, key, source)
    return found


def typed_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings of a study that were typed, such as "--seeds=0,1" and "--options.trainer.max_steps=9".

    Args:
        words: --KEY=VALUE each.

    Raises:
        ValueError: a value that is not YAML.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, _, text = word.removeprefix("--").partition("=")
        try:
            found[key] = get_loader("yaml")(f"[{text}]" if key in _LISTS and not text.startswith("[") else text)
        except yaml.YAMLError as error:
            raise ValueError(f"--{key} {text}: is not a value as YAML has it.") from error
    return found


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; expected a study's YAML file.")
    if not path.exists():
        raise ValueError(no_file(str(path)).replace("configuration", "study"))
    with yaml_errors(path):
        text = path.read_text(encoding="utf-8")
        _refuse_twice(yaml.compose(text), str(path))
        loaded = get_loader("yaml")(text)  # jsonargparse's, to which 1e-3 is a number
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: expected a study, such as `cells:` with settings below it, found {loaded!r:.60}.")
    return loaded


def _refuse_twice(node: yaml.Node | None, path: str) -> None:
    """YAML takes the last of two equal keys, silently: of two cells of one name, one would be lost."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ValueError(
                    f"{path}, line {line}: {key.value!r} stands here twice, first in line {seen[key.value]}."
                )
            seen[str(key.value)] = line
            _refuse_twice(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value, path)


_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def seconds(place: Place) -> float | None:
    """A duration such as 90 (seconds), "45m" or "1h30m"; None where there is none."""
    value = place.value
    if value is None:
        return None
    expected = "a duration, such as 90s, 45m, 2h or 1h30m"
    if type(value) in (int, float):
        duration = float(value)
    else:
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)\s*", str(value))
        if not parts or not re.fullmatch(r"(?:\d+(?:\.\d+)?\s*(?:d|h|min|m|s)\s*)+", str(value)):
            raise place.error(expected)
        duration = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < duration < math.inf:
        raise place.error(expected)
    return duration


def spelt(duration: float) -> str:
    """A duration in seconds as a study's file has it, such as "1h30m"."""
    found, left = "", duration
    for unit in ("h", "m"):
        whole, left = divmod(left, _UNITS[unit])
        found += f"{whole:.0f}{unit}" if whole else ""
    return f"{found}{left:g}s" if left or not found else found

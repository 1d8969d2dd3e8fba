"""What a grid or a search varies: parameters with their values, some of them only where others have a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lit_t6.command_line.complaints import nearest
from lit_t6.sweeps.reading import Place
from lit_t6.sweeps.settings import Settings, option_key, read_settings, refuse_own

Kind = Literal["int", "float", "categorical"]
Value = str | int | float | bool | None
_KEYS = ("option", "type", "low", "high", "log", "step", "choices", "when")


@dataclass(frozen=True)
class Parameter:
    """One thing that is varied.

    Args:
        name: of the parameter; as it is called in tables.
        option: dotted, of `fit`; empty where each choice is a set of options of its own.
        kind: of its values.
        low: the least number.
        high: the greatest.
        log: whether numbers are chosen on a logarithmic scale.
        step: from one number to the next; None for 1 of whole numbers, and for none of others.
        choices: the values of a categorical parameter; names, where each is a set of options.
        bundles: those sets.
        when: what other parameters must have, by their names, for this one to be there.
    """

    name: str
    option: str
    kind: Kind = "categorical"
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()
    bundles: Mapping[str, Settings] = field(default_factory=dict)
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def is_there(self, chosen: Mapping[str, Value]) -> bool:
        """Whether it has a value, given those chosen before it."""
        return all(other in chosen and chosen[other] in values for other, values in self.when.items())

    def settings(self, value: Value) -> Settings:
        """What a value stands for."""
        return self.bundles[str(value)] if self.bundles else Settings((), {self.option: value})

    def extremes(self) -> tuple[Value, ...]:
        """Its choices, or its least and greatest number."""
        if self.kind == "categorical":
            return self.choices
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)

    @property
    def short(self) -> str:
        """Its name without what stands before the last dot."""
        return self.name.rpartition(".")[2]


def settings_of(parameters: tuple[Parameter, ...], chosen: Mapping[str, Value]) -> Settings:
    """What all values that were chosen stand for; a later parameter's option holds."""
    settings = Settings()
    for parameter in parameters:
        if parameter.name in chosen:
            settings = parameter.settings(chosen[parameter.name]).over(settings)
    return settings


def read_grid(place: Place) -> tuple[Parameter, ...]:
    """The parameters of a grid: each an option with a list of values, or with `choices` and `when`.

    Raises:
        ValueError: no such thing.
    """
    found: dict[str, Parameter] = {}
    for name, below in _named(place):
        below = Place({"choices": below.value}, below.key, below.source) if isinstance(below.value, list) else below
        if not isinstance(below.value, dict) or "choices" not in below.value:
            raise below.error("a list of values, or choices: with a list and when: with a condition")
        found[name] = _read(name, below.known(("option", "choices", "when")), found)
    return tuple(found.values())


def read_search(place: Place) -> tuple[Parameter, ...]:
    """The parameters of a search.

    Raises:
        ValueError: no such thing.
    """
    found: dict[str, Parameter] = {}
    for name, below in _named(place):
        if not isinstance(below.value, dict) or "type" not in below.value:
            raise below.error("type: int, float or categorical, and what belongs to it")
        found[name] = _read(name, below.known(_KEYS), found)
    return tuple(found.values())


def _named(place: Place) -> list[tuple[str, Place]]:
    given = place.mapping("parameters, such as model.attention.rank_q")
    if not given:
        raise place.error("parameters, such as model.attention.rank_q")
    return [(option_key(str(name)), Place(value, f"{place.key}.{name}", place.source)) for name, value in given.items()]


def _read(name: str, place: Place, before: Mapping[str, Parameter]) -> Parameter:
    kind = place.at("type").choice(get_args(Kind), "categorical")
    choices, bundles = _choices(place) if kind == "categorical" else ((), {})
    option = option_key(place.at("option").text())
    if bundles and option:
        raise ValueError(
            f"{place.source}: {place.key}: has choices that are sets of options, and option: {option}; give a list "
            f"of values for that option instead, or leave it out."
        )
    if not bundles and not option and "." not in name:
        raise ValueError(
            f"{place.source}: {place.key}: which option of fit is {name}? Add option:, such as option: "
            f"model.attention.{name}, or call the parameter by its option."
        )
    option = "" if bundles else option or name
    refuse_own(option, place)
    numbers = _numbers(place, kind) if kind != "categorical" else {}
    for key in ("low", "high", "log", "step") if kind == "categorical" else ("choices",):
        if key in place.value:
            raise ValueError(f"{place.source}: {place.key}: type {kind} has no {key}.")
    return Parameter(name, option, kind, **numbers, choices=choices, bundles=bundles, when=_when(place, before))  # type: ignore[arg-type]  # one of Kind


def _choices(place: Place) -> tuple[tuple[Value, ...], dict[str, Settings]]:
    given = place.at("choices")
    if isinstance(given.value, dict) and given.value:
        bundles = {
            str(name): read_settings(Place(below, f"{given.key}.{name}", given.source))
            for name, below in given.value.items()
        }
        return tuple(bundles), bundles
    if not isinstance(given.value, list) or not given.value:
        raise given.error("a list of values, or names with options below each")
    for value in given.value:
        if not isinstance(value, Value):
            raise ValueError(
                f"{given.source}: {given.key}: {value!r} is no single value; give each choice a name with its options "
                f"below it."
            )
    if len({repr(value) for value in given.value}) < len(given.value):
        raise ValueError(f"{given.source}: {given.key}: a value stands there twice: {given.value}.")
    return tuple(given.value), {}


def _numbers(place: Place, kind: str) -> dict[str, Any]:
    whole = kind == "int"
    log = place.at("log").flag()
    found: dict[str, Any] = {"log": log}
    for name in ("low", "high", "step"):
        at = place.at(name)
        if name == "step" and at.value is None:
            continue
        found[name] = at.number()
        if whole and type(at.value) is not int:
            raise at.error("a whole number, as the type is int")
    low, high, step = found["low"], found["high"], found.get("step")
    if low > high:
        raise ValueError(f"{place.source}: {place.key}: low={low} is above high={high}.")
    if log and low <= 0:
        raise ValueError(f"{place.source}: {place.key}: log: true needs low above 0, got {low}.")
    if step is not None and step <= 0:
        raise place.at("step").error("a number above 0")
    if log and step is not None:
        raise ValueError(f"{place.source}: {place.key}: log and step do not go together; leave one out.")
    return found


def _when(place: Place, before: Mapping[str, Parameter]) -> dict[str, tuple[Value, ...]]:
    conditions: dict[str, tuple[Value, ...]] = {}
    for other, values in place.at("when").mapping("other parameters with their values").items():
        name = option_key(str(other))
        if name not in before:
            there = f" There are {', '.join(before)}." if before else ""
            raise ValueError(
                f"{place.source}: {place.key}.when: {other!r} is not a parameter that stands before this one"
                f"{nearest(str(other), before)}{there}"
            )
        given = tuple(values) if isinstance(values, list) else (values,)
        if (choices := before[name].choices) and (wrong := [v for v in given if v not in choices]):
            raise ValueError(
                f"{place.source}: {place.key}.when.{other}: {wrong[0]!r} is not one of its choices"
                f"{nearest(str(wrong[0]), map(str, choices))} There are {', '.join(map(str, choices))}."
            )
        conditions[name] = given
    return conditions

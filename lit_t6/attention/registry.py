"""The mechanisms that this package exports, and the short names that people type for them."""

import inspect
from dataclasses import dataclass
from typing import Any

from lit_t6.attention.base import AttentionConfig, numeric_fields


@dataclass(frozen=True)
class ShortName:
    """What a short name stands for: a configuration class by its import path, and settings."""

    class_path: str
    init_args: dict[str, Any]


def mechanisms(base: type[AttentionConfig] = AttentionConfig) -> list[type[AttentionConfig]]:
    """The configuration class of every mechanism of `lit_t6.attention`."""
    found = [mechanism for child in base.__subclasses__() for mechanism in (child, *mechanisms(child))]
    return [m for m in found if m.__module__.startswith("lit_t6.attention.") and not inspect.isabstract(m)]


def short_names() -> dict[str, ShortName]:
    """Every short name of a mechanism, such as "TPA" or "MQA"."""
    return {
        name: ShortName(f"lit_t6.attention.{mechanism.__name__}", settings)
        for mechanism in mechanisms()
        for name, settings in mechanism.short_names.items()
    }


def comparable_numbers(config: AttentionConfig) -> dict[str, float]:
    """The numeric settings of all mechanisms, with those of `config` filled in and 0 for those that it has not."""
    return {name: 0.0 for mechanism in mechanisms() for name in numeric_fields(mechanism)} | config.numbers()

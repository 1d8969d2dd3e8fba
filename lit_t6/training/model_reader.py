"""Models as `fit` reads them from files and options, without making weights or looking for data."""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import capture_parser

from lit_t6.attention import short_names
from lit_t6.model import T6Config
from lit_t6.training.cli import T6CLI
from lit_t6.training.options import arrange, nearest, parse

_SETTING = "--model.attention."


class ModelReader:
    """Reads with the parser of `fit`: the same files, options and errors. Sections beside `model` are only checked."""

    def __init__(self) -> None:
        self._parser = capture_parser(partial(T6CLI.run, "fit", []))
        commands: Any = self._parser._subcommands_action
        self._fit = commands.choices["fit"]

    def read(self, options: Sequence[str]) -> T6Config:
        """The model of some options, such as `--config FILE` and `--model.d_model 256`.

        Raises:
            ValueError: what `fit` refuses.
        """
        model = parse(self._parser, ["fit", *arrange(options)], self._fit).fit.model.as_dict()
        return T6Config.from_dict({field.name: model[field.name] for field in fields(T6Config)})

    def read_all(
        self, models: Sequence[str], base: Sequence[str] = (), overrides: Sequence[str] = ()
    ) -> list[T6Config]:
        """Several models that share a base.

        Args:
            models: see `spell_out`; they win over `base`.
            base: the same, read before each model.
            overrides: options `--model.KEY=VALUE`. They win over files, but not over the settings in `models`.
                A setting of the mechanism goes to the models that have it.

        Raises:
            ValueError: what `fit` refuses, or a setting that no model has.
        """
        options = [word for part in base for word in spell_out(part)]
        shared = [override for override in overrides if not _is_setting(override)]
        settings = [override for override in overrides if _is_setting(override)]
        # A short name's settings are options too, and the last one holds: so the model's own words come last.
        rows = [(spell_out(model), [*options, *shared]) for model in models]
        known = (
            [_settings(self.read([*before, *own])) for own, before in rows] if settings else [set[str]()] * len(rows)
        )
        for setting in settings:
            if not any(_key(setting) in names for names in known):
                names = sorted(set().union(*known))
                raise ValueError(
                    f"no model compared has a setting model.attention.{_key(setting)}{nearest(_key(setting), names)} "
                    f"There are {', '.join(names)}."
                )
        return [
            self.read([*before, *(s for s in settings if _key(s) in names), *own])
            for (own, before), names in zip(rows, known, strict=True)
        ]


def spell_out(model: str) -> list[str]:
    """The options of `fit` that describe a model.

    Args:
        model: parts joined by commas: YAML files, which stack, a mechanism's short name, and settings KEY=VALUE; a KEY
            without a dot is one of the mechanism's, as in `configs/model/small.yaml,TPA,rank_q=4`.

    Raises:
        ValueError: a part that is none of these.
    """
    options = []
    for part in map(str.strip, model.split(",") if model else []):
        key, equals, value = part.partition("=")
        if part in short_names():
            options += ["--model.attention", part]
        elif Path(part).is_file():
            options += ["--config", part]
        elif equals:
            options.append(f"--{key}={value}" if "." in key else f"{_SETTING}{key}={value}")
        elif not part:
            raise ValueError(
                f"{model!r}: expected files, a mechanism and KEY=VALUE joined by commas; one part is empty."
            )
        elif "/" in part or part.endswith((".yaml", ".yml")):
            raise ValueError(f"{part}: no such configuration file.")
        else:
            raise ValueError(
                f"{part!r} is neither a configuration file nor a mechanism{nearest(part, short_names())} "
                f"There are {', '.join(short_names())}."
            )
    return options


def _is_setting(option: str) -> bool:
    return option.startswith(_SETTING) and not option.startswith((f"{_SETTING}class_path", f"{_SETTING}help"))


def _key(option: str) -> str:
    return option.removeprefix(_SETTING).removeprefix("init_args.").partition("=")[0]


def _settings(config: T6Config) -> set[str]:
    """Names of the settings of a model's mechanism."""
    return {field.name for field in fields(config.attention)}  # type: ignore[arg-type]  # a dataclass

"""Models as `fit` reads them from files and options, without weights, data, or Lightning, which takes long to load."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, set_loader

from lit_t6.attention import short_names, solve_num_heads
from lit_t6.command_line.complaints import nearest
from lit_t6.command_line.options import arrange
from lit_t6.command_line.parsing import load_yaml, parse
from lit_t6.model import T6Config

OTHER_SECTIONS = (
    *("seed_everything", "trainer", "data", "auto_resume", "on_save_error", "convert", "checkpoint", "resume"),
    *("samples", "diagnostics", "guards", "predictions", "ckpt_path", "weights_only", "return_predictions", "verbose"),
)
"""What files of the training commands hold beside `model`."""
_OF_THE_TRAINING = ("optimizer", "compile", "recompute")
_OPTIONS_OF_THE_TRAINING = tuple(f"--model.{name}" for name in _OF_THE_TRAINING)
_MODE = "yaml_of_models"
_SETTING = "--model.attention."


def _load(text: str) -> Any:
    loaded = load_yaml(text)
    if isinstance(loaded, dict):
        loaded = {key: value for key, value in loaded.items() if key not in OTHER_SECTIONS}
        if isinstance(model := loaded.get("model"), dict):
            loaded["model"] = {key: value for key, value in model.items() if key not in _OF_THE_TRAINING}
    return loaded


set_loader(_MODE, _load, exceptions=(yaml.YAMLError,))


class ModelReader:
    """Reads the files and options of `fit`, with its errors. What files hold beside the model is passed over."""

    def __init__(self) -> None:
        self._parser = ArgumentParser(parser_mode=_MODE, exit_on_error=False, allow_abbrev=False)
        self._parser.add_argument("-c", "--config", action="config")
        self._parser.add_class_arguments(T6Config, "model")

    def read(self, options: Sequence[str]) -> T6Config:
        """The model of some options, such as `--config FILE` and `--model.d_model 256`.

        Raises:
            ValueError: what `fit` refuses.
        """
        model = parse(self._parser, arrange(options)).model.as_dict()
        return T6Config.from_dict({field.name: model[field.name] for field in fields(T6Config)})

    def read_of_fit(self, options: Sequence[str]) -> T6Config:
        """The model of options of `fit`, those that do not concern it left aside.

        Raises:
            ValueError: what `fit` refuses of the model.
        """
        kept: list[str] = []
        arranged = arrange(options)
        for word, following in zip(arranged, [*arranged[1:], ""], strict=True):
            if word in ("--config", "--model.attention"):
                kept += [word, following]
            elif word.startswith("--model.attention.class_path"):
                kept += [word, following] if "=" not in word else [word]
            elif word.startswith("--model.") and not word.startswith(_OPTIONS_OF_THE_TRAINING):
                kept.append(word) if "=" in word else kept.extend([word, following])
        return self.read(kept)

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


class ModelSizes:
    """Sizes of models by name, each of options of `fit`, and the head counts that change them."""

    def __init__(self) -> None:
        self._reader = ModelReader()
        self._models: dict[str, T6Config] = {}

    def add(self, name: str, options: Sequence[str], heads: bool = False) -> None:
        """Read a model.

        Args:
            name: to ask for it by.
            options: of `fit`, those that do not concern the model among them.
            heads: solve a head count that is null, as `fit` does.

        Raises:
            ValueError: what `fit` refuses of the model.
        """
        model = self._reader.read_of_fit(options)
        self._models[name] = model.resolved() if heads else model

    def num_parameters(self, name: str) -> int:
        """Of a whole model, its head count known."""
        return self._models[name].num_parameters()

    def heads_for(self, name: str, num_parameters: int) -> int:
        """The head count with which a whole model comes nearest to a number of parameters.

        Raises:
            ValueError: none will do.
        """
        model, attention = self._models[name], self._models[name].attention
        some = replace(model, attention=attention.with_num_heads(attention.num_heads_multiple))
        beside = some.num_parameters() - some.num_layers * some.attention.num_parameters(some.d_model)
        if beside >= num_parameters:
            raise ValueError(
                f"without attention the model has {beside:,} parameters already, and {num_parameters:,} are aimed at; "
                f"make it narrower or take fewer layers."
            )
        return solve_num_heads(attention, model.d_model, (num_parameters - beside) // model.num_layers).heads()


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

"""Files and options of `fit` as studies give them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_t6.sweeps.reading import Place

SET_BY_SWEEP = {
    "seed_everything": "seeds says which",
    "trainer.logger": "each trial is logged into its own folder",
    "auto_resume": "interrupted trials go on by themselves",
    "ckpt_path": "interrupted trials go on by themselves",
    "config": "name files under configs",
    "trainer.devices": "gpus_per_trial says how many",
    "trainer.default_root_dir": "each trial is logged into its own folder",
    "checkpoint.dirpath": "each trial keeps its checkpoints in its own folder",
    "trainer.fast_dev_run": "a trial is trained, and its figures are kept",
    "print_config": "a trial is trained",
    "help": "a trial is trained",
}
"""Options of `fit` that a study must leave alone, and why."""


@dataclass(frozen=True)
class Settings:
    """Files and options of `fit` that belong together: a cell's, or those of a choice in a search.

    Args:
        configs: YAML files, over those of the study.
        options: dotted options of `fit`, over files and the study's options.
    """

    configs: tuple[Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def over(self, below: "Settings") -> "Settings":
        """These settings over others; where both set an option, these hold."""
        kept = {key: value for key, value in below.options.items() if key not in self.options}
        return Settings((*below.configs, *self.configs), {**kept, **self.options})


def read_settings(place: Place) -> Settings:
    """Settings that are written as `{configs: …, options: …}`, or as options alone.

    Raises:
        ValueError: files that are not there, or no options.
    """
    given = place.mapping("options, or configs and options, below it")
    if given and set(given) <= {"configs", "options"}:
        return Settings(place.at("configs").files(), flat_options(place.at("options")))
    return Settings((), flat_options(place))


def flat_options(place: Place) -> dict[str, Any]:
    """Options of `fit`, dotted; such as are written below one another are joined with dots.

    `.init_args` of the mechanism is left out, as people do: one spelling of each option, so that the last one holds.

    Raises:
        ValueError: no options, or one that the sweep sets itself.
    """
    options: dict[str, Any] = {}
    for key, value in place.mapping("options of fit, such as trainer.max_steps: 500").items():
        if not isinstance(key, str) or not key.strip("-"):
            raise ValueError(f"{place.source}: {place.key}: {key!r} is not an option, such as trainer.max_steps.")
        options |= _flat(option_key(key), value)
    for key in options:
        refuse_own(key, place)
    return options


def option_key(key: str) -> str:
    """The one spelling of an option: without dashes, and without `.init_args` of the mechanism."""
    return re.sub(r"^model\.attention\.init_args(?=\.|$)", "model.attention", key.removeprefix("--"))


def refuse_own(key: str, place: Place) -> None:
    """Refuse an option that the sweep sets itself.

    Raises:
        ValueError: it does.
    """
    for own, why in SET_BY_SWEEP.items():
        if key == own or key.startswith(f"{own}.") or (own == "help" and key.endswith(".help")):
            raise ValueError(f"{place.source}: {place.key}: {key} is the sweep's own business: {why}. Leave it out.")


def _flat(key: str, value: Any) -> dict[str, Any]:
    key = option_key(key)
    if not isinstance(value, dict) or not value or ("class_path" in value and key != "model.attention"):
        return {key: value}
    found: dict[str, Any] = {key: value["class_path"]} if "class_path" in value else {}
    for name, below in value.items():
        if name != "class_path":
            found |= _flat(f"{key}.{name}", below)
    return found

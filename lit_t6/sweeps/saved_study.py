"""A study kept in its folder, with the files it names, so that it can go on there or on another machine."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lit_t6.sweeps.parameters import Parameter
from lit_t6.sweeps.settings import Settings
from lit_t6.sweeps.study import Chosen, Study
from lit_t6.whole_files import replace_bytes

STUDY_NAME = "study.yaml"
CONFIGS_NAME = "configs"


def save_study(study: Study, folder: Path) -> Path:
    """Keep a study: `study.yaml`, overlays and typed settings worked in, and copies of its files beside it.

    What is read from there, with `load_study`, is the same study, whatever becomes of the files it was made of.

    Args:
        study: to keep.
        folder: of the study.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written.
    """
    names: dict[Path, str] = {}

    def keep(path: Path) -> str:
        if path not in names:
            taken = set(names.values())
            others = (f"{CONFIGS_NAME}/{path.stem}{f'-{n}' if n else ''}.yaml" for n in range(len(taken) + 1))
            names[path] = next(name for name in others if name not in taken)
        return names[path]

    text = yaml.safe_dump(plain_of(study, keep), sort_keys=False, allow_unicode=True, width=120)
    contents = {name: path.read_bytes() for path, name in names.items()}
    (folder / CONFIGS_NAME).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        replace_bytes(folder / name, content)
    replace_bytes(folder / STUDY_NAME, text.encode())
    return folder / STUDY_NAME


def plain_of(study: Study, keep: Callable[[Path], str] = str) -> dict[str, Any]:
    """A study as a YAML file says it.

    Args:
        study: to write down.
        keep: what its files are called there.
    """
    varied: dict[str, Any] = {}
    if study.cells is not None:
        varied["cells"] = {name: _settings(settings, keep) for name, settings in study.cells.items()}
    for key, parameters in (("grid", study.grid), ("search", study.search)):
        if parameters is not None:
            varied[key] = {parameter.name: _parameter(parameter, key, keep) for parameter in parameters}
    of_a_search = {"sampler": _chosen(study.sampler), "num_trials": study.num_trials} if study.search else {}
    return {
        "name": study.name,
        "question": study.question,
        **_settings(Settings(study.configs, study.options), keep),
        **varied,
        "baseline": study.baseline or None,
        "seeds": list(study.seeds),
        "match": study.match,
        "match_to": study.match_to,
        "objective": {"metric": study.objective.metric, "direction": study.objective.direction},
        "record": list(study.record),
        **of_a_search,
        "pruner": _chosen(study.pruner),
        "gpus_per_trial": study.gpus_per_trial,
        "time_limit": study.time_limit,
        "retries": dict(study.retries),
    }


def _settings(settings: Settings, keep: Callable[[Path], str]) -> dict[str, Any]:
    return {"configs": [keep(path) for path in settings.configs], "options": dict(settings.options)}


def _chosen(chosen: Chosen) -> dict[str, Any]:
    every = {"every_n_steps": chosen.every_n_steps, "every_n_tokens": chosen.every_n_tokens}
    return {"name": chosen.name, **chosen.options, **{unit: count for unit, count in every.items() if count}}


def _parameter(parameter: Parameter, key: str, keep: Callable[[Path], str]) -> dict[str, Any]:
    found: dict[str, Any] = {} if parameter.bundles else {"option": parameter.option}
    if key == "search":
        found["type"] = parameter.kind
    if parameter.bundles:
        found["choices"] = {name: _settings(each, keep) for name, each in parameter.bundles.items()}
    elif parameter.kind == "categorical":
        found["choices"] = list(parameter.choices)
    else:
        found |= {"low": parameter.low, "high": parameter.high, "log": parameter.log}
        found |= {} if parameter.step is None else {"step": parameter.step}
    when: Mapping[str, Any] = {other: list(values) for other, values in parameter.when.items()}
    return {**found, **({"when": when} if when else {})}

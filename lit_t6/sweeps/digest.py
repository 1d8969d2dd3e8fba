"""What decides the results of a study: the same study is gone on with, another one is not mixed into it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lit_t6.sweeps.cells import Cell, plain_cells
from lit_t6.sweeps.parameters import Parameter
from lit_t6.sweeps.settings import Settings

if TYPE_CHECKING:
    from lit_t6.sweeps.study import Study


_PLACE = "data.path"
"""The option that says where the data lies. It is no setting where it is known what the data is."""


def digest(study: "Study", places: bool = False) -> str:
    """A fingerprint of what all trials of a study have in common: contents of files, options, objective, matching.

    More cells, seeds or trials leave it as it is, as do limits, retries and what is recorded.

    Args:
        study: that decides.
        places: where the data lies counts too, as it does of studies of which it was not written down what data is
            theirs.
    """
    return _hashed(common(study, places))


def digests(study: "Study") -> tuple[str, str]:
    """The fingerprints that a record of a study's trial may bear: without the place of the data, and with it."""
    return digest(study), digest(study, places=True)


def common(study: "Study", places: bool = False) -> dict[str, Any]:
    """What decides the results of every trial, in plain form; arguments as of `digest`."""
    found: dict[str, Any] = {
        **_contents(Settings(study.configs, study.options), places),
        "objective": [study.objective.metric, study.objective.direction],
        "pruner": vars(study.pruner),
        "gpus_per_trial": study.gpus_per_trial,
        "search": None if study.search is None else [_parameter(parameter) for parameter in study.search],
    }
    if study.match != "none":
        cells = {cell.name: cell for cell in plain_cells(study)}
        to = study.match_to or _cell(cells[study.baseline], places)
        found["match"] = [study.match, to]
    return found


def changes(before: "Study", after: "Study", places: bool = True) -> list[str]:
    """What of one study decides results and is otherwise in another, a line each; none if they may be mixed.

    Args:
        before: that has been begun.
        after: that is to go on with it. It may have more cells, seeds and trials.
        places: as of `digest`.
    """
    were, are = common(before, places), common(after, places)
    lines = []
    if were.pop("match", None) != are.pop("match", None) and (was := _match(before)) != (now := _match(after)):
        lines.append(f"match was {was}, is {now}")  # or the baseline's settings are others, which its cell tells
    lines = [*differences(were, are), *lines]
    old, new = ({cell.name: _cell(cell, places) for cell in plain_cells(study)} for study in (before, after))
    for name in old:
        if name in new:
            lines += _differences(old[name], new[name], f"cell {name!r}: ")
    return lines


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Where what all trials of two studies have in common differs, a line each; both as `common` says it."""
    return _differences(_as_written(before), _as_written(after))


def _as_written(common: Mapping[str, Any]) -> dict[str, Any]:
    """What `common` says without names, under those that it has in a study's file."""
    found = dict(common)
    if objective := found.get("objective"):
        found["objective"] = dict(zip(("metric", "direction"), objective, strict=True))
    if match := found.pop("match", None):
        kind, to = match
        found |= {"match": kind, "baseline" if isinstance(to, dict) else "match_to": to}
    return found


def _match(study: "Study") -> str:
    """What cells are matched to, as a study says it."""
    if study.match == "none":
        return study.match
    return f"{study.match} ({f'match_to: {study.match_to}' if study.match_to else f'baseline: {study.baseline}'})"


def names_data(cell: Cell) -> bool:
    """Whether a cell itself says where its data lies."""
    return _cell(cell, places=True) != _cell(cell)


def _cell(cell: Cell, places: bool = False) -> dict[str, Any]:
    return _contents(Settings(cell.configs, cell.options), places)


def _contents(settings: Settings, places: bool = False) -> dict[str, Any]:
    options = {key: value for key, value in settings.options.items() if places or key != _PLACE}
    return {"configs": [_content(path, places) for path in settings.configs], "options": options}


def _content(path: Path, places: bool) -> Any:
    """What a file says; comments and its place do not count."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not places and isinstance(content, dict) and isinstance(data := content.get("data"), dict):
        rest = {key: value for key, value in data.items() if f"data.{key}" != _PLACE}
        content = {key: rest if key == "data" else value for key, value in content.items() if key != "data" or rest}
    return content


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        **vars(parameter),
        "bundles": {name: _contents(each, places=True) for name, each in parameter.bundles.items()},
    }


def _differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Where two plain values differ, with what each says."""
    before, after = (json.loads(json.dumps(value, default=str)) for value in (before, after))
    if isinstance(before, dict) and isinstance(after, dict):
        join = where and not where.endswith(": ")
        return [
            line
            for key in {**before, **after}
            for line in _differences(before.get(key), after.get(key), f"{where}{'.' if join else ''}{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for number, (old, new) in enumerate(zip(before, after, strict=True), 1)
            for line in _differences(old, new, f"{where}[{number}]")
        ]
    return [] if before == after else [f"{where} was {_shown(before)}, is {_shown(after)}"]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def of_cell(cell: Cell, places: bool = False) -> str:
    """A fingerprint of a cell's own files and options; `places` as of `digest`."""
    return _hashed(_cell(cell, places))


def _hashed(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]

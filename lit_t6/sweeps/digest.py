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


def digest(study: "Study") -> str:
    """A fingerprint of what all trials of a study have in common: contents of files, options, objective, matching.

    More cells, seeds or trials leave it as it is, as do limits, retries and what is recorded.
    """
    return hashlib.sha256(json.dumps(common(study), sort_keys=True, default=str).encode()).hexdigest()[:16]


def common(study: "Study") -> dict[str, Any]:
    """What decides the results of every trial, in plain form."""
    found: dict[str, Any] = {
        **_contents(Settings(study.configs, study.options)),
        "objective": [study.objective.metric, study.objective.direction],
        "pruner": vars(study.pruner),
        "gpus_per_trial": study.gpus_per_trial,
        "search": None if study.search is None else [_parameter(parameter) for parameter in study.search],
    }
    if study.match != "none":
        cells = {cell.name: cell for cell in plain_cells(study)}
        to = study.match_to or _cell(cells[study.baseline])
        found["match"] = [study.match, to]
    return found


def changes(before: "Study", after: "Study") -> list[str]:
    """What of one study decides results and is otherwise in another, a line each; none if they may be mixed.

    Args:
        before: that has been begun.
        after: that is to go on with it. It may have more cells, seeds and trials.
    """
    were, are = common(before), common(after)
    lines = []
    if were.pop("match", None) != are.pop("match", None) and (was := _match(before)) != (now := _match(after)):
        lines.append(f"match was {was}, is {now}")  # or the baseline's settings are others, which its cell tells
    lines = [*_differences(were, are), *lines]
    old, new = ({cell.name: _cell(cell) for cell in plain_cells(study)} for study in (before, after))
    for name in old:
        if name in new:
            lines += _differences(old[name], new[name], f"cell {name!r}: ")
    return lines


def _match(study: "Study") -> str:
    """What cells are matched to, as a study says it."""
    if study.match == "none":
        return study.match
    return f"{study.match} ({f'match_to: {study.match_to}' if study.match_to else f'baseline: {study.baseline}'})"


def _cell(cell: Cell) -> dict[str, Any]:
    return _contents(Settings(cell.configs, cell.options))


def _contents(settings: Settings) -> dict[str, Any]:
    return {"configs": [_content(path) for path in settings.configs], "options": dict(settings.options)}


def _content(path: Path) -> Any:
    """What a file says; comments and its place do not count."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {**vars(parameter), "bundles": {name: _contents(each) for name, each in parameter.bundles.items()}}


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


def of_cell(cell: Cell) -> str:
    """A fingerprint of a cell's own files and options."""
    plain: Mapping[str, Any] = _cell(cell)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]

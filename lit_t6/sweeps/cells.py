"""The cells of a study: what is trained with each seed, and compared."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_t6.sweeps.parameters import Parameter, Value, settings_of
from lit_t6.sweeps.settings import Settings

if TYPE_CHECKING:
    from lit_t6.sweeps.study import Study

HEADS = "model.attention.num_heads"


@dataclass(frozen=True)
class Cell:
    """One setting of what a study varies.

    Args:
        name: in tables, and of its folder.
        configs: YAML files, over those of the study.
        options: dotted options of `fit`, over files and the study's options.
        parameters: the values that it has of a grid's or a search's parameters, by name.
    """

    name: str
    configs: tuple[Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Value] = field(default_factory=dict)


def cells_of(study: "Study") -> tuple[Cell, ...]:
    """The cells of a study, in its order, with head counts solved where `match` asks for it; none of a search.

    Raises:
        ValueError: head counts cannot be solved.
    """
    return matched(study, tuple(plain_cells(study)))


def matched(study: "Study", cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Cells with the head counts that `match` asks for.

    Raises:
        ValueError: none will do, or a cell that is to be matched sets its own.
    """
    if study.match == "none" or not cells:
        return cells
    aimed_at = "" if study.match_to else study.baseline
    for cell in cells:
        if cell.name != aimed_at and cell.options.get(HEADS) is not None:
            raise ValueError(
                f"cell {cell.name!r}: sets {HEADS}={cell.options[HEADS]}, which match: parameters is to solve; leave "
                f"it out, or write match: none."
            )
    from lit_t6.sweeps.matching import match_heads  # PyTorch is loaded for those who need it

    heads = match_heads({cell.name: fit_options(study, cell) for cell in cells}, study.baseline, study.match_to)
    return tuple(
        replace(cell, options={**cell.options, HEADS: heads[cell.name]}) if cell.name in heads else cell
        for cell in cells
    )


def fit_options(study: "Study", cell: Cell) -> list[str]:
    """The options of `fit` that a study and a cell set, as words; the cell's after the study's."""
    settings = Settings(cell.configs, cell.options).over(Settings(study.configs, study.options))
    files = [word for path in settings.configs for word in ("--config", str(path))]
    return [*files, *(f"--{key}={_word(value)}" for key, value in settings.options.items())]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain_cells(study: "Study") -> Iterator[Cell]:
    """The cells as they are written, head counts unsolved."""
    for name, settings in (study.cells or {}).items():
        yield Cell(name, settings.configs, settings.options)
    for chosen in combinations(study.grid or ()):
        yield cell_of(name_of(study.grid or (), chosen), study.grid or (), chosen)


def cell_of(name: str, parameters: tuple[Parameter, ...], chosen: Mapping[str, Value]) -> Cell:
    """The cell of some values of parameters."""
    settings: Settings = settings_of(parameters, chosen)
    return Cell(name, settings.configs, settings.options, dict(chosen))


def combinations(parameters: tuple[Parameter, ...]) -> list[dict[str, Value]]:
    """Every combination of the choices of a grid; a parameter that is not there has no value."""
    found: list[dict[str, Value]] = [{}] if parameters else []
    for parameter in parameters:
        found = [
            {**chosen, **more}
            for chosen in found
            for more in ([{parameter.name: v} for v in parameter.choices] if parameter.is_there(chosen) else [{}])
        ]
    return found


def name_of(parameters: tuple[Parameter, ...], chosen: Mapping[str, Value]) -> str:
    """A cell's name from its values, such as "rank_q=2,rank_k=1"; what would be ambiguous is spelt out."""
    shorts = [parameter.short for parameter in parameters]
    names = {p.name: p.short if shorts.count(p.short) == 1 else p.name for p in parameters}
    return ",".join(f"{names[name]}={_shown(value)}" for name, value in chosen.items())


def _shown(value: Value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+=()@ -]", "_", text)

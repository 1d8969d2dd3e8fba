"""What a study varies, as columns: of tables, of figures' axes, and of TensorBoard's HParams."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_t6.sweeps.cells import HEADS
from lit_t6.sweeps.report.findings import CellFindings, Findings

_HEAD_SIZE = "model.attention.head_dim"


@dataclass(frozen=True)
class Column:
    """Something that differs from cell to cell.

    Args:
        name: short, as people read it.
        values: by cell; a cell without one has no such thing, such as ranks of MHA.
    """

    name: str
    values: Mapping[str, Any]

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(type(value) in (int, float) for value in self.values.values())


def columns_of(found: Findings) -> list[Column]:
    """The files and options of `fit` that differ from cell to cell, of a search those that are sought."""
    keys = list(dict.fromkeys(key for cell in found.cells for key in cell.options))
    shorts = [_short(key) for key in keys]
    files = {cell.name: ", ".join(cell.configs) for cell in found.cells if cell.configs}
    columns = [Column("configs", files)] if len(set(files.values())) > 1 or 0 < len(files) < len(found.cells) else []
    for key, short in zip(keys, shorts, strict=True):
        values = {cell.name: value for cell in found.cells if (value := _value(found, cell, key)) is not None}
        if len({repr(value) for value in values.values()}) > 1 or 0 < len(values) < len(found.cells):
            columns.append(Column(short if shorts.count(short) == 1 else key, values))
    return columns


def _value(found: Findings, cell: CellFindings, key: str) -> Any:
    value = cell.options.get(key, found.study.options.get(key))
    return str(value) if isinstance(value, list | dict | bool) else value


def _short(key: str) -> str:
    return key.rpartition(".")[2]


@dataclass(frozen=True)
class Axis:
    """What the objective is drawn against.

    Args:
        label: of the axis.
        x: by cell.
        lines: cells that differ in nothing else, under what they have in common; by x.
    """

    label: str
    x: Mapping[str, float]
    lines: Mapping[str, list[CellFindings]]


def axes_of(found: Findings) -> list[Axis]:
    """Each number that is varied, with the cells that differ in it alone joined to lines; numbers that go together,
    such as Rk = Rv, are one. Where heads are varied, their count and their size are both there. Of a search, whose
    trials differ in all at once, every number is an axis.
    """
    columns = columns_of(found)
    together: dict[str, list[Column]] = {}
    for column in columns:
        together.setdefault(repr(sorted(column.values.items())), []).append(column)
    axes = []
    for group in together.values():
        if group[0].is_numeric:
            others = [column for column in columns if column not in group]
            axes.append(_axis(found, " = ".join(column.name for column in group), group[0].values, others))
    keys = {key for cell in found.cells for key in cell.options}
    heads = {cell.name: count for cell in found.cells if (count := cell.fact("num_heads")) is not None}
    if _HEAD_SIZE in keys and HEADS not in keys:
        others = [column for column in columns if column.name != _short(_HEAD_SIZE)]
        axes.append(_axis(found, "num_heads, solved", heads, others))
    if found.study.search is not None:
        return [axis for axis in axes if len({axis.x[c.name] for c in found.ranked() if c.name in axis.x}) > 1]
    return [axis for axis in axes if axis.lines]


def _axis(found: Findings, label: str, x: Mapping[str, float], others: list[Column]) -> Axis:
    groups: dict[tuple[Any, ...], list[CellFindings]] = {}
    for cell in found.cells:
        if cell.name in x and cell.value is not None:
            groups.setdefault(tuple(column.values.get(cell.name) for column in others), []).append(cell)
    groups = {
        key: sorted(cells, key=lambda cell: x[cell.name])
        for key, cells in groups.items()
        if len({x[cell.name] for cell in cells}) > 1
    }
    differ = [place for place in range(len(others)) if len({repr(key[place]) for key in groups}) > 1]
    lines = {}
    for key, cells in groups.items():
        shown = [place for place in (differ or range(len(others))) if key[place] is not None]
        lines[", ".join(f"{others[place].name} = {key[place]}" for place in shown)] = cells
    return Axis(label, x, lines)

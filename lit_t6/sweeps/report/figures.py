"""Figures of a report: all cells, the objective against what is varied, and what mattered in a search."""

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lit_t6.sweeps.report.drawing import (
    COLOURS,
    CUT,
    GREY,
    Bar,
    cut,
    headline,
    limits,
    literal,
    plain,
    point_on,
    styles,
    titled,
    with_unit,
    wrapped,
)
from lit_t6.sweeps.report.findings import CellFindings, Findings
from lit_t6.sweeps.report.statistics import Estimate
from lit_t6.sweeps.report.varied import Axis, axes_of

_MOST_CELLS = 40
_MOST_INSIDE = 5
"""Lines of which a legend leaves room for the lines themselves."""
_BELOW = 0.24
"""Of a row, from a mean to its seeds."""
_MOST_LEFT_OUT = 8
_WIDEST = 56
"""Letters in a line of a cell's name, before its row."""


def cells_figure(found: Findings) -> Figure | None:
    """Every cell with its seeds and its interval, and beside it its difference to the baseline."""
    ranked, search = found.ranked(), found.study.search is not None
    cells = (ranked if search else list(found.cells))[:_MOST_CELLS]
    if not ranked:
        return None
    base = found.study.baseline and any(cell.difference for cell in cells)
    names = [_row_name(found, cell) for cell in cells]
    row = max(0.32, *(0.15 * (1 + name.count("\n")) for name in names))
    figure = Figure(figsize=(10.5 if base else 9.0, 1.6 + row * len(cells)))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)  # inches: names do not touch the edge
    panels = figure.subplots(1, 2 if base else 1, squeeze=False, sharey=True)[0]
    left = panels[0]
    cut_off = _rows(left, cells, [cell.value for cell in cells], [list(cell.by_seed.values()) for cell in cells])
    left.set_yticks(range(len(cells)), names)
    for label, cell in zip(left.get_yticklabels(), cells, strict=True):
        label.set_fontweight("bold" if cell is found.best else "normal")
        label.set_color("black" if len(cell.completed) == len(cell.trials) else "#b00000")
    left.set_ylim(len(cells) - 0.4, -0.6)
    left.set_xlabel(literal(with_unit(found.study.objective.metric)))
    if base:
        baseline = next(cell for cell in found.cells if cell.name == found.study.baseline)
        differences = [cell.difference.of if cell.difference else None for cell in cells]
        pairs = [[value - baseline.by_seed[seed] for seed, value in cell.by_seed.items() if seed in baseline.by_seed]
                 if cell is not baseline else [] for cell in cells]  # fmt: skip
        cut_off |= _rows(panels[1], cells, differences, pairs, seen=[0.0])
        panels[1].axvline(0, color="black", linewidth=1)
        panels[1].set_xlabel(literal(f"difference to {found.study.baseline}, by seed"))
    bold = f"Bold: the best {'mean' if _is_several(found) else 'value'}." if found.best else ""
    titled(figure, headline(found.study), f"{_about(found, cut_off)} {bold}".strip(), _left_out(found, len(cells)))
    return figure


def _left_out(found: Findings, shown: int) -> str:
    """What to say of cells for which the figure has no room."""
    if found.study.search is None:
        return f"The first {shown} of {len(found.cells)} cells." if shown < len(found.cells) else ""
    best = f"The best {shown} of {len(found.ranked())}" if shown < len(found.ranked()) else f"The {shown}"
    return f"{best} trials that completed, of {len(found.cells)}." if shown < len(found.cells) else ""


def _row_name(found: Findings, cell: CellFindings) -> str:
    told = "" if len(cell.completed) == len(cell.trials) else f"\n{cell.outcomes()}"
    name = f"{cell.name}: {cell.setting}" if cell.setting else found.label(cell)
    return literal(wrapped(name, _WIDEST)) + told


def named(cell: CellFindings, between: str) -> str:
    """A cell's name; of a search, what it tried as well."""
    return f"{cell.name}{between}{cell.setting}" if cell.setting else cell.name


def _rows(
    axes: Axes,
    cells: Sequence[CellFindings],
    means: Sequence[Estimate | None],
    seeds: Sequence[Sequence[float]],
    seen: Sequence[float] = (),
) -> bool:
    """A row a cell: its seeds, mean and interval, and room for what else is to be seen; whether an interval is cut."""
    plain(axes)
    points = [*seen, *(value for values in seeds for value in values)] or [0.0]
    ends = [end for of in means if of is not None for end in (of.low, of.high) if end is not None]
    shown = limits(points, ends)
    axes.set_xlim(*shown)
    for place, (of, values) in enumerate(zip(means, seeds, strict=True)):
        if of is None:
            continue
        if of.low is not None and of.high is not None:
            axes.plot([of.low, of.high], [place, place], color=COLOURS[0], linewidth=1.6, zorder=2)
        below = place + (_BELOW if len(values) > 1 else 0)  # not under the diamond
        axes.plot(values, [below] * len(values), "o", color=GREY, markersize=3.5, zorder=3)
        axes.plot(of.mean, place, "D", color=COLOURS[0], markersize=6, zorder=4)
    axes.tick_params(labelsize=8)
    bars = [(place, of.low, of.high) for place, of in enumerate(means) if of is not None]
    point_on(
        axes,
        [Bar(place, low, high, COLOURS[0]) for place, low, high in bars if low is not None and high is not None],
        upright=False,
    )
    return cut(ends, shown)


def _is_several(found: Findings) -> bool:
    """Whether there are means, of several seeds."""
    return max((len(cell.trials) for cell in found.cells), default=0) > 1


def _about(found: Findings, cut_off: bool) -> str:
    if not _is_several(found):
        return ""
    return f"Dots: seeds; diamonds and bars: mean and 95 % interval (Student's t).{' ' + CUT if cut_off else ''}"


def seeds_left_out(found: Findings) -> str:
    """What to say of means where some seed of a cell did not complete, which may have been a worse one."""
    fewer = [cell for cell in found.cells if 0 < len(cell.completed) < len(cell.trials)]
    return f"Means leave out seeds that did not complete ({len(fewer)} of {len(found.cells)} cells)." if fewer else ""


def varied_figure(found: Findings) -> Figure | None:
    """The objective against each number that is varied."""
    axes = axes_of(found)
    if not axes:
        return None
    across = min(3, len(axes))
    down = -(-len(axes) // across)
    figure = Figure(figsize=(max(7.0, 0.8 + 4.4 * across), 0.9 + 3.5 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    bars = [(panel, _panel(panel, found, axis)) for panel, axis in zip(panels, axes, strict=False)]
    ends = [end for _, each in bars for bar in each for end in (bar.low, bar.high)]
    shown = limits([value for cell in found.cells for value in cell.by_seed.values()], ends)
    panels[0].set_ylim(*shown)  # shared by all
    for panel, each in bars:
        point_on(panel, each, upright=True)
    for panel in panels[len(axes) :]:
        panel.set_visible(False)
    for panel in panels[::across]:
        panel.set_ylabel(literal(with_unit(found.study.objective.metric)))
    titled(figure, headline(found.study), _about(found, cut(ends, shown)), seeds_left_out(found), _undrawn(found, axes))
    return figure


def _undrawn(found: Findings, axes: Sequence[Axis]) -> str:
    """What to say of cells that are in no panel."""
    if found.study.search is not None:
        drawn, why = {name for axis in axes for name in axis.x}, "Without any of these"
    else:
        drawn = {cell.name for axis in axes for line in axis.lines.values() for cell in line}
        why = "On no line with another cell"
    left_out = [cell.name for cell in found.ranked() if cell.name not in drawn]
    names = ", ".join(f"({name})" if "," in name else name for name in left_out[:_MOST_LEFT_OUT])
    more = f" and {len(left_out) - _MOST_LEFT_OUT} others" if len(left_out) > _MOST_LEFT_OUT else ""
    return f"{why}, so not here: {names}{more}." if left_out else ""


def _panel(axes: Axes, found: Findings, axis: Axis) -> list[Bar]:
    """One of the panels; its intervals."""
    plain(axes)
    bars: list[Bar] = []
    label = axis.label
    if found.study.search is not None:
        cells = [cell for cell in found.ranked() if cell.name in axis.x]
        values = [cell.value.mean for cell in cells if cell.value is not None]
        axes.plot([axis.x[cell.name] for cell in cells], values, "o", color=COLOURS[0], markersize=5, alpha=0.8)
    else:
        cells = [cell for line in axis.lines.values() for cell in line]
        for number, (name, line) in enumerate(axis.lines.items()):
            bars += _line(axes, axis, line, name, number, len(axis.lines))
        if len(axis.lines) > 1:
            below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
            axes.legend(fontsize=7.5, framealpha=0.85, **(below if len(axis.lines) > _MOST_INSIDE else {}))
        elif held := next(iter(axis.lines)):
            label += f"  ({held})"
    _scale(axes, sorted({axis.x[cell.name] for cell in cells}))
    axes.set_xlabel(literal(label))
    return bars


def _line(axes: Axes, axis: Axis, cells: Sequence[CellFindings], name: str, number: int, of: int) -> list[Bar]:
    """A line through the means of cells; their intervals."""
    colour, dashes = next(itertools.islice(styles(), number, None))
    places = sorted({axis.x[cell.name] for cell in cells})
    aside = number - (of - 1) / 2  # a little beside each other, so that bars do not cover bars
    if _is_logarithmic(places):
        x = [axis.x[cell.name] * (places[-1] / places[0]) ** (0.012 * aside) for cell in cells]
    else:
        x = [axis.x[cell.name] + 0.012 * aside * (places[-1] - places[0]) for cell in cells]
    axes.plot(
        x,
        [cell.value.mean for cell in cells if cell.value],
        "D" + dashes,
        color=colour,
        markersize=5,
        label=literal(name),
    )
    bars: list[Bar] = []
    for place, cell in zip(x, cells, strict=True):
        values = list(cell.by_seed.values())
        axes.plot([place] * len(values), values, "o", color=colour, markersize=3, alpha=0.5)
        if cell.value is not None and cell.value.low is not None and cell.value.high is not None:
            axes.plot([place, place], [cell.value.low, cell.value.high], color=colour, linewidth=1.2, alpha=0.7)
            bars.append(Bar(place, cell.value.low, cell.value.high, colour))
    return bars


def _scale(axes: Axes, places: Sequence[float]) -> None:
    """Ticks where there are values; logarithmic where they span a decade."""
    if _is_logarithmic(places):
        axes.set_xscale("log")
    if len(places) <= 8:
        axes.set_xticks(places, [f"{place:g}" for place in places], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())


def _is_logarithmic(places: Sequence[float]) -> bool:
    return places[0] > 0 and places[-1] / places[0] >= 8 and any(place % 1 for place in places)


def importance_figure(names: Sequence[str], shares: Sequence[float], title: str) -> Figure:
    """Bars of how much of the variance each parameter explains."""
    figure = Figure(figsize=(7.5, 1.5 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    plain(axes)
    axes.barh(range(len(names)), [100 * share for share in shares], color=COLOURS[0], height=0.6)
    for place, share in enumerate(shares):
        axes.text(100 * share + 1, place, f"{100 * share:.0f} %", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [literal(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("variance of the objective that it explains by itself (%), completed trials")
    titled(figure, title)
    return figure

"""The objective against the size of the cache."""

from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lit_t6.sweeps.report.comparison import Front, front_of
from lit_t6.sweeps.report.drawing import (
    COLOURS,
    CUT,
    Bar,
    cut,
    headline,
    limits,
    literal,
    place_labels,
    plain,
    point_on,
    titled,
    with_unit,
    wrapped,
)
from lit_t6.sweeps.report.figures import named, seeds_left_out
from lit_t6.sweeps.report.findings import CellFindings, Findings
from lit_t6.sweeps.report.statistics import LEVEL

_WIDEST = 40
"""Letters in a line of a cell's name beside its point."""
_MOST_NAMED, _BEST_NAMED = 16, 5
_STEP = 0.012
"""Of the axis, from one to the next of cells that have the same size, so that bars do not cover bars."""


def pareto_figure(found: Findings) -> Figure | None:
    """The objective against the bytes cached of a token, and the cells that no other one beats in both: hollow where
    that may be noise, or is not tested. Bytes are exact, so bars are upright.
    """
    cells = [cell for cell in found.ranked() if cell.fact("cache_bytes_per_token") is not None]
    sizes = {cell.name: int(cell.fact("cache_bytes_per_token")) for cell in cells}
    if len(set(sizes.values())) < 2:
        return None
    figure = Figure(figsize=(8.2, 5.2), layout="constrained")
    axes = figure.subplots()
    plain(axes)
    front = front_of(found)
    best = {cell.name for cell in front.members}
    logarithmic = max(sizes.values()) >= 4 * min(sizes.values()) > 0
    places = _beside_each_other(cells, sizes, best, logarithmic)
    drawn: list[Bar] = []
    for cell in cells:
        assert cell.value is not None
        x, colour = places[cell.name], COLOURS[1] if cell.name in best else COLOURS[0]
        if cell.value.low is not None and cell.value.high is not None:
            axes.plot([x] * 2, [cell.value.low, cell.value.high], color=colour, alpha=0.45, linewidth=1.2)
            drawn.append(Bar(x, cell.value.low, cell.value.high, colour))
        inside = "white" if front.tests and cell.name in front.doubtful | front.untested else colour
        axes.plot(x, cell.value.mean, "D", color=colour, markerfacecolor=inside, markersize=6, zorder=3)
    steps = [cell.value.mean for cell in front.members if cell.value is not None]
    axes.step([sizes[cell.name] for cell in front.members], steps, where="post", color=COLOURS[1], linewidth=1.2,
              zorder=1)  # fmt: skip
    if logarithmic:
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ends = [end for bar in drawn for end in (bar.low, bar.high)]
    shown = limits([value for cell in cells for value in cell.by_seed.values()], ends)
    axes.set_ylim(*shown)
    point_on(axes, drawn, upright=True)
    axes.margins(x=0.3 if any(cell.setting for cell in cells) else 0.18)  # for names
    axes.set_xlabel("bytes cached of a token, all layers")
    axes.set_ylabel(literal(with_unit(found.study.objective.metric)))
    bars = f"Bars: 95 % intervals over seeds; bytes are exact.{' ' + CUT if cut(ends, shown) else ''}" if ends else ""
    titled(figure, headline(found.study), _about(front), bars, seeds_left_out(found))
    others = [cell for cell in cells if cell.name not in best]
    labelled = [*front.members, *(others if len(cells) <= _MOST_NAMED else others[:_BEST_NAMED])]
    labels = [(places[cell.name], cell.value.mean, _label(cell)) for cell in labelled if cell.value is not None]
    place_labels(figure, axes, labels)
    return figure


def _about(front: Front) -> str:
    said = "Orange: no other is better in both"
    if front.untested and not front.tests:
        return f"{said}, by the means; too few seeds to test it."
    noise = f"within noise of one that caches no more (paired t, Holm, {100 * LEVEL:g} %)" if front.doubtful else ""
    hollow = ", or ".join(filter(None, [noise, "not tested, for want of seeds" if front.untested else ""]))
    return f"{said}; hollow: {hollow}." if hollow else f"{said}."


def _beside_each_other(
    cells: Sequence[CellFindings], sizes: Mapping[str, int], front: set[str], logarithmic: bool
) -> dict[str, float]:
    """Where each cell is drawn: at its size, or beside another's bar of that size; the front stays in place."""
    least, most = min(sizes.values()), max(sizes.values())
    taken: Counter[int] = Counter()
    places = {}
    for cell in sorted(cells, key=lambda cell: cell.name not in front):
        size = sizes[cell.name]
        aside = _STEP * taken[size]
        places[cell.name] = size * (most / least) ** aside if logarithmic else size + (most - least) * aside
        taken[size] += cell.value is not None and cell.value.low is not None
    return places


def _label(cell: CellFindings) -> str:
    """What is written at a point: of a search what was tried as well, where that is short; the tables have it all."""
    text = wrapped(named(cell, "\n"), _WIDEST)
    return text if text.count("\n") < 3 else wrapped(cell.name, _WIDEST)

"""Learning curves: read from the trials' event files, and drawn by cell."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_t6.sweeps.report.drawing import COLOURS, GREY, literal, plain, styles, titled, with_unit, wrapped
from lit_t6.sweeps.report.findings import UNFINISHED, CellFindings, Findings, Trial
from lit_t6.training.event_records import frames

Curve = dict[int, float]
"""Values by the number of optimizer steps done."""
_EVENTS = "events.out.tfevents.*"
_MOST_NAMED = 16
_WIDEST = 34
"""Letters in a line of the legend."""
_ENOUGH_FOR_THE_END = 4
"""Validations, of which the later ones are worth a panel of their own."""


def read_curves(folder: Path, tags: Sequence[str]) -> dict[str, Curve]:
    """The curves that a trial logged; of a step that was logged twice, the later value.

    Args:
        folder: of the trial.
        tags: of the curves.

    Returns:
        Those that are there.
    """
    found: dict[str, Curve] = {}
    for path in sorted(folder.glob(_EVENTS)):
        for _, event in frames(path.read_bytes()):
            for value in event.summary.value:
                if value.tag in tags and (number := _number(value)) is not None:
                    found.setdefault(value.tag, {})[event.step + 1] = number  # logged under the step before
    return {tag: dict(sorted(curve.items())) for tag, curve in found.items()}


def _number(value: object) -> float | None:
    kind = value.WhichOneof("value")  # type: ignore[attr-defined]  # a Summary.Value
    return float(value.simple_value) if kind == "simple_value" else None  # type: ignore[attr-defined]


def curves_figure(found: Findings, curves: Mapping[str, Mapping[str, Curve]]) -> Figure | None:
    """The objective on the way, by cell: the mean over seeds in a band from the lowest seed to the highest.

    Args:
        found: by a study.
        curves: of each trial, by its job and tag.
    """
    metric = found.study.objective.metric
    by_cell = {cell.name: [(t, _finite(curves.get(t.job.key, {}).get(metric, {}))) for t in cell.trials]
               for cell in found.cells}  # fmt: skip
    by_cell = {name: [(trial, curve) for trial, curve in each if curve] for name, each in by_cell.items()}
    steps = sorted({step for each in by_cell.values() for _, curve in each for step in curve})
    if len(steps) < 2:
        return None
    panels = 1 if len(steps) < _ENOUGH_FOR_THE_END else 2
    figure = Figure(figsize=(11.5 if panels == 2 else 7.5, 4.6), layout="constrained")
    whole, *ends = figure.subplots(1, panels, squeeze=False)[0]
    named = {cell.name for cell in _named(found)}
    looks = styles()
    for cell in found.cells:
        look = next(looks) if cell.name in named else (GREY, "-")
        for axes in (whole, *ends):
            _draw(axes, cell, by_cell[cell.name], look, cell.name in named)
    for axes in (whole, *ends):
        plain(axes)
        axes.set_xlabel("optimizer steps")
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]))
        axes.set_ylabel(literal(with_unit(metric)))
    for end in ends:
        late = max((step for step in steps if step <= steps[-1] / 2), default=steps[0])
        _zoom(end, [pair for each in by_cell.values() for pair in each], late, steps[-1])
        end.set_title(f"from step {late:,} on", fontsize=9)
        whole.set_title("the whole training", fontsize=9)
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    band = " Bands: from the lowest seed to the highest." if any(len(each) > 1 for each in by_cell.values()) else ""
    gone = {trial.outcome for trial in found.trials} - {"completed", UNFINISHED}
    early = f" Crosses: {', '.join(sorted(gone)).replace('_', ' ')}." if gone else ""
    others = " Grey: all others." if len(named) < len(found.cells) else ""
    titled(figure, f"{found.study.name}: learning curves.{band}{early}{others}")
    return figure


def _named(found: Findings) -> list[CellFindings]:
    """The cells that get a colour: all, or where they are many, or a search's, the best and the baseline."""
    if found.study.search is None and len(found.cells) <= _MOST_NAMED:
        return list(found.cells)
    best = found.ranked()[: len(COLOURS)]
    return best + [cell for cell in found.cells if cell.name == found.study.baseline and cell not in best]


def _finite(curve: Curve) -> Curve:
    """What of a curve can be drawn: one that diverged may end in what is no number."""
    return {step: value for step, value in curve.items() if math.isfinite(value)}


def _draw(
    axes: Axes, cell: CellFindings, curves: Sequence[tuple[Trial, Curve]], look: tuple[str, str], named: bool
) -> None:
    if not curves:
        return
    seeds = [curve for _, curve in curves]
    colour, dashes = look
    common = sorted(set.union(*map(set, seeds)))
    values = {step: [curve[step] for curve in seeds if step in curve] for step in common}
    means = [sum(values[step]) / len(values[step]) for step in common]
    if len(seeds) > 1 and named:
        axes.fill_between(common, [min(values[s]) for s in common], [max(values[s]) for s in common],
                          color=colour, alpha=0.13, linewidth=0)  # fmt: skip
    name = f"{cell.name}: {cell.setting}" if cell.setting else cell.name
    width, label = (1.5, name) if named else (0.7, None)
    axes.plot(
        common,
        means,
        dashes,
        color=colour,
        linewidth=width,
        label=label and literal(wrapped(label, _WIDEST, most=3)),
        zorder=3 if named else 1,
    )
    for trial, curve in curves:
        if trial.outcome not in ("completed", UNFINISHED):  # where it ended, others of the cell may have gone on
            end = max(curve)
            axes.plot(end, curve[end], "x", color=colour, markersize=6)


def _zoom(axes: Axes, curves: Sequence[tuple[Trial, Curve]], first: int, last: int) -> None:
    """Show the end of the training, at the scale of the trials that came there; one that diverged may leave it."""
    good = [curve for trial, curve in curves if trial.outcome in ("completed", UNFINISHED) and max(curve) >= first]
    shown = good or [curve for _, curve in curves]
    values = [value for curve in shown for step, value in curve.items() if step >= first]
    margin = 0.05 * (max(values) - min(values)) or 0.01
    axes.set_xlim(first - 0.02 * (last - first), last + 0.02 * (last - first))
    axes.set_ylim(min(values) - margin, max(values) + margin)

"""Learning curves: read from the trials' event files, and drawn by cell."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_t6.sweeps.report.drawing import COLOURS, GREY, cut, limits, literal, plain, styles, titled, with_unit, wrapped
from lit_t6.sweeps.report.findings import UNFINISHED, CellFindings, Findings, Trial
from lit_t6.training.event_records import frames

Curve = dict[int, float]
"""Values by the number of optimizer steps done."""
_EVENTS = "events.out.tfevents.*"
_MOST_NAMED = 16
_MOST_UNSEEN = 6
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
    """The objective on the way, by cell: the mean over seeds in a band from the lowest seed to the highest. A trial
    that did not complete is in neither, and has a thin dashed line of its own.

    Args:
        found: by a study.
        curves: of each trial, by its job and tag.
    """
    metric = found.study.objective.metric
    by_cell = {cell.name: [(t, _finite(curves.get(t.job.key, {}).get(metric, {}))) for t in cell.trials]
               for cell in found.cells}  # fmt: skip
    by_cell = {name: [(trial, curve) for trial, curve in each if curve] for name, each in by_cell.items()}
    pairs = [pair for each in by_cell.values() for pair in each]
    steps = sorted({step for _, curve in pairs for step in curve})
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
    cut_off = _readable(whole, pairs)
    for end in ends:
        late = max((step for step in steps if step <= steps[-1] / 2), default=steps[0])
        _zoom(end, pairs, late, steps[-1])
        end.set_title(f"from step {late:,} on", fontsize=9)
        whole.set_title("the whole training", fontsize=9)
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    several = any(sum(_counts(trial) for trial, _ in each) > 1 for each in by_cell.values())
    band = " Lines: means over seeds; bands: from the lowest seed to the highest." if several else ""
    gone = sorted({trial.outcome for trial, _ in pairs if not _counts(trial)})
    apart = ", in no mean or band" if several else ""
    early = f"Thin dashed lines to a cross: {', '.join(gone).replace('_', ' ')}{apart}." if gone else ""
    early += " Some leave the frame." if cut_off else ""
    others = "Grey: all others." if len(named) < len(found.cells) else ""
    unseen = _unseen(found, {trial.job.key for trial, _ in pairs})
    titled(figure, f"{found.study.name}: learning curves.{band}", f"{early} {others}".strip(), unseen)
    return figure


def _unseen(found: Findings, drawn: Collection[str]) -> str:
    """What to say of trials that ended before there was anything to draw."""
    validated = found.study.objective.metric.startswith("val/")
    by_outcome: dict[str, list[str]] = {}
    for cell in found.cells:
        gone = [trial for trial in cell.trials if not _counts(trial) and trial.job.key not in drawn]
        for outcome in dict.fromkeys(trial.outcome for trial in gone):
            keys = [trial.job.key for trial in gone if trial.outcome == outcome]
            names = by_outcome.setdefault(outcome.replace("_", " ").capitalize(), [])
            names += [cell.name] if len(keys) == len(cell.trials) else keys
    said = []
    for outcome, names in by_outcome.items():
        told = ", ".join(f"({name})" if "," in name else name for name in names[:_MOST_UNSEEN])
        more = f" and {len(names) - _MOST_UNSEEN} others" if len(names) > _MOST_UNSEEN else ""
        said.append(f"{outcome} before their first {'validation' if validated else 'value'}: {told}{more}.")
    return " ".join(said)


def _counts(trial: Trial) -> bool:
    """Whether a trial is part of its cell's mean: others of the cell may have gone on where it ended."""
    return trial.outcome in ("completed", UNFINISHED)


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
    colour, dashes = look
    seeds = [curve for trial, curve in curves if _counts(trial)]
    gone = [curve for trial, curve in curves if not _counts(trial)]
    width, label = (1.5, _label(cell)) if named else (0.7, None)
    if seeds:
        common = sorted(set.union(*map(set, seeds)))
        values = {step: [curve[step] for curve in seeds if step in curve] for step in common}
        means = [sum(values[step]) / len(values[step]) for step in common]
        if len(seeds) > 1 and named:
            axes.fill_between(common, [min(values[s]) for s in common], [max(values[s]) for s in common],
                              color=colour, alpha=0.13, linewidth=0)  # fmt: skip
        axes.plot(common, means, dashes, color=colour, linewidth=width, label=label, zorder=3 if named else 1)
    for number, curve in enumerate(gone):
        told = label if not seeds and not number else None
        axes.plot(list(curve), list(curve.values()), "--", color=colour, linewidth=0.7, label=told, zorder=2)
        end = max(curve)
        axes.plot(end, curve[end], "x", color=colour, markersize=6)


def _label(cell: CellFindings) -> str:
    """A cell in the legend, with the trials that its mean leaves out."""
    name = f"{cell.name}: {cell.setting}" if cell.setting else cell.name
    left_out = sum(not _counts(trial) for trial in cell.trials)
    return literal(wrapped(name, _WIDEST, most=3) + (f"\n{cell.outcomes()}" if left_out else ""))


def _readable(axes: Axes, curves: Sequence[tuple[Trial, Curve]]) -> bool:
    """Keep the scale to the trials that did not diverge; whether something leaves the frame for that."""
    good = [value for trial, curve in curves if _counts(trial) for value in curve.values()]
    every = [value for _, curve in curves for value in curve.values()]
    shown = limits(good or every, every)
    if cut(every, shown):
        axes.set_ylim(*shown)
        return True
    return False


def _zoom(axes: Axes, curves: Sequence[tuple[Trial, Curve]], first: int, last: int) -> None:
    """Show the end of the training, at the scale of the trials that came there; one that diverged may leave it."""
    good = [curve for trial, curve in curves if _counts(trial) and max(curve) >= first]
    shown = good or [curve for _, curve in curves]
    values = [value for curve in shown for step, value in curve.items() if step >= first]
    margin = 0.05 * (max(values) - min(values)) or 0.01
    axes.set_xlim(first - 0.02 * (last - first), last + 0.02 * (last - first))
    axes.set_ylim(min(values) - margin, max(values) + margin)

"""The picture of a run: tokens a second and peak memory of every mechanism, ours beside the authors'."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_t6.bench.figure import COLOURS
from lit_t6.bench.figure import OURS as OURS_IN_COLOURS
from lit_t6.bench.training.case import OURS, UPSTREAM
from lit_t6.bench.training.report import title
from lit_t6.bench.training.results import Entry, Results

_WIDTH = 0.4
"""Of a bar; two stand beside each other."""
_LOOKS = {OURS: ("ours", COLOURS[OURS_IN_COLOURS], -1), UPSTREAM: ("authors'", COLOURS["TPA upstream"], 1)}
"""Name, colour and side of the bars."""


def draw(results: Results, path: Path) -> Figure:
    """Write the figure as a PNG.

    Args:
        results: of a run.
        path: of the file.

    Returns:
        What was drawn.
    """
    groups = [results.of_group(group) for group in results.groups]
    models = max(len({entry.name for entry in entries}) for entries in groups)
    figure = Figure(figsize=(3 + 2.2 * models, 1 + 3 * len(groups)), layout="constrained")
    rows = figure.subplots(len(groups), 2, squeeze=False)
    for row, entries in zip(rows, groups, strict=True):
        _panel(row[0], entries, "tokens/s", "tokens_per_sec", "{:,.0f}")
        _panel(row[1], entries, "peak GiB", "peak_gib", "{:.2f}")
        row[0].set_title(title(entries[0]), fontsize=10, loc="left")
    rows[0][1].legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(_LOOKS))
    compiled = "compiled" if results.settings["compile"] else "not compiled"
    figure.suptitle(
        f"Training steps, {results.settings['precision']}, {compiled}\n{results.facts['same']['device']}", fontsize=11
    )
    figure.savefig(path, dpi=110)
    return figure


def _panel(axes: Axes, entries: list[Entry], label: str, figure: str, form: str) -> None:
    names = list(dict.fromkeys(entry.name for entry in entries))
    codes = [code for code in _LOOKS if any(entry.code == code for entry in entries)]
    for code in codes:
        what, colour, side = _LOOKS[code]
        measured = [(names.index(e.name), getattr(e, figure) or 0.0) for e in entries if e.code == code]
        shift = side * _WIDTH / 2 if len(codes) > 1 else 0.0
        bars = axes.bar([x + shift for x, _ in measured], [y for _, y in measured], _WIDTH, color=colour, label=what)
        axes.bar_label(bars, [form.format(y) if y else "none" for _, y in measured], fontsize=7, padding=2)
    attentions = {entry.name: entry.attention for entry in entries}
    axes.set_xticks(range(len(names)), [f"{name}\n{attentions[name]}" for name in names], fontsize=7)
    axes.set_ylabel(label)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)

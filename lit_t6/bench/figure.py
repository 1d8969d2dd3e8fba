"""The picture of a run: time against the length of the cache, a panel for each head count and batch."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from lit_t6.bench.results import Entry, Results

OURS = "TPA, ours"
COLOURS = {
    OURS: "#d55e00",
    "TPA upstream": "#e69f00",
    "MQA": "#0072b2",
    "GQA": "#009e73",
    "MHA": "#555555",
    "MLA": "#a0529c",
}
"""Of a palette that colour-blind people can tell apart."""
_LEAST_GAP = 0.055
"""Between labels, as a part of the axis."""

Line = tuple[list[int], list[float]]


def draw(results: Results, path: Path) -> Figure:
    """Write the figure as a PNG.

    Args:
        results: of a run.
        path: of the file.

    Returns:
        What was drawn.
    """
    heads = sorted({shape[0] for shape in results.shapes})
    batches = sorted({shape[1] for shape in results.shapes})
    figure = Figure(figsize=(1.2 + 4.3 * len(batches), 1.4 + 3.2 * len(heads)), layout="constrained")
    panels = figure.subplots(len(heads), len(batches), squeeze=False, sharex=True, sharey=True)
    for row, num_heads in zip(panels, heads, strict=True):
        for axes, batch in zip(row, batches, strict=True):
            _panel(axes, results, num_heads, batch)
    _limits(panels[0, 0], results)
    for row in panels:
        row[0].set_ylabel("ms a step")
        for axes in row:
            _label(axes)
    for axes in panels[-1]:
        axes.set_xlabel("tokens in the cache")
    settings = results.settings
    ranks = ", ".join(map(str, settings["ranks"]))
    started = ", without CUDA graphs" if results.without_graphs else ""
    figure.suptitle(
        f"One decode step of one layer: TPA ({ranks}) beside the fastest way of each mechanism\n"
        f"{results.facts['same']['device']}, {settings['dtype']}, heads of {settings['head_dim']}{started}",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)
    return figure


def _lines(results: Results, num_heads: int, batch: int) -> dict[str, Line]:
    shapes = [shape for shape in results.shapes if shape[:2] == (num_heads, batch)]
    lines: dict[str, Line] = {}
    for name in [*results.columns(), OURS]:
        points = [(s[2], e.ms) for s in shapes if (e := _found(results, s, name)) is not None and e.ms]
        if points:
            lines[name] = ([x for x, _ in points], [y for _, y in points])
    return lines


def _found(results: Results, shape: tuple[int, int, int], name: str) -> Entry | None:
    return results.ours(shape) if name == OURS else results.best(shape, name)


def _panel(axes: Axes, results: Results, num_heads: int, batch: int) -> None:
    for name, (x, y) in _lines(results, num_heads, batch).items():
        wide = name == OURS
        axes.plot(
            x,
            y,
            color=COLOURS.get(name, "#000000"),
            linewidth=2.4 if wide else 1.4,
            marker="o",
            markersize=4 if wide else 3,
            label=name if wide else results.label(name),
            zorder=3 if wide else 2,
        )
    shapes = [shape for shape in results.shapes if shape[:2] == (num_heads, batch)]
    floors = [(shape[2], results.floor_ms(ours)) for shape in shapes if (ours := results.ours(shape))]
    if floors:
        axes.plot(*zip(*floors, strict=True), color="black", linestyle="--", linewidth=1, label="floor", zorder=1)
    axes.set_title(f"{num_heads} heads, batch {batch}", fontsize=10)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(axes: Axes, results: Results) -> None:
    """Both axes logarithmic, with room for labels on the right; all panels share them."""
    lengths = sorted({shape[2] for shape in results.shapes})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(lengths[0] / 1.3, lengths[-1] * (lengths[-1] / lengths[0]) ** 0.32 * 1.6)
    ticks = lengths if len(lengths) < 5 else lengths[:: 2 if len(lengths) % 2 else 1][-8:]
    axes.set_xticks(ticks, [_short(length) for length in ticks], fontsize=8)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _short(length: int) -> str:
    return f"{length // 1024}K" if length % 1024 == 0 else str(length)


def _label(axes: Axes) -> None:
    """The name of every line at its end, moved up or down until no two overlap."""
    to_axes = axes.transData + axes.transAxes.inverted()
    lines = axes.get_lines()
    columns: dict[float, list[tuple[float, Line2D]]] = {}  # a line that ends early stands in nobody's way
    for line in lines:
        x, y = map(float, to_axes.transform(line.get_xydata()[-1]))  # type: ignore[index]  # an array
        columns.setdefault(round(x, 3), []).append((y, line))
    for x, ends in columns.items():
        for y, (_, line) in zip(_spread([y for y, _ in ends]), ends, strict=True):
            axes.text(
                x + 0.025,
                y,
                str(line.get_label()),
                transform=axes.transAxes,
                color=line.get_color(),
                fontsize=8,
                va="center",
            )


def _spread(places: Sequence[float]) -> list[float]:
    """Heights as near to the given ones as keeps the least gap between them, in the same order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[float]] = []  # [sum of wanted first heights, count]
    for index in order:
        groups.append([places[index], 1])
        while len(groups) > 1:
            low, high = groups[-2], groups[-1]
            if low[0] / low[1] + low[1] * _LEAST_GAP <= high[0] / high[1]:
                break
            groups[-2:] = [[low[0] + high[0] - high[1] * low[1] * _LEAST_GAP, low[1] + high[1]]]
    heights = [total / count + place * _LEAST_GAP for total, count in groups for place in range(int(count))]
    spread = [0.0] * len(places)
    for index, height in zip(order, heights, strict=True):
        spread[index] = height
    return spread

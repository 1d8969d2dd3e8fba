"""What all figures of a report have in common: colours, labels that do not overlap, limits."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lit_t6.sweeps.report.lettering import drawable, wrap
from lit_t6.sweeps.study import Study

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a0529c", "#e69f00", "#56b4e9", "#555555")
"""Of a palette that colour-blind people can tell apart."""
GREY = "#9a9a9a"
CUT = "Arrowheads: bars go on outside the frame."
"""What to say where `cut` tells of intervals."""
ARROWS = {True: ("v", "^"), False: ("<", ">")}
"""Markers at the lower and the upper end of bars, upright or level ones."""
_DASHES = ("-", "-.", ":", "--")
"""The dashed one last: learning curves, which are never so many, have it for trials that did not complete."""
_UNITS = {
    "val/bits_per_byte": "bits per byte",
    "val/loss": "loss (nats a token)",
    "train/loss": "training loss (nats a token)",
    "val/perplexity": "perplexity",
    "perf/tokens_per_sec": "tokens a second",
    "perf/step_ms": "milliseconds a step",
    "memory/peak_gib": "peak memory (GiB)",
}
_NEAR = 24
"""Pixels from a point to its name."""


def styles() -> Iterator[tuple[str, str]]:
    """Colours and dashes, one pair after the other for each line."""
    return itertools.cycle((colour, dashes) for dashes in _DASHES for colour in COLOURS)


def with_unit(tag: str) -> str:
    """A figure's name for an axis: of validations, or as it is logged."""
    said = _UNITS.get(tag, tag)
    return f"validation {said}" if tag.startswith("val/") and tag in _UNITS else said


def headline(study: Study) -> str:
    """Name and question of a study."""
    return f"{study.name}: {study.question}" if study.question else study.name


def literal(text: str) -> str:
    """Text of a study as matplotlib shows it: what stands between two dollar signs is no formula, a legend leaves out
    what begins with an underscore, and a letter that no font has is an escape.
    """
    return f"{' ' * text.startswith('_')}{drawable(text)}".replace("$", r"\$")


def wrapped(text: str, width: int, most: int | None = None) -> str:
    """A name in lines of at most so many letters, and at most so many lines: the figure is for its numbers."""
    lines = [part for line in drawable(text).splitlines() for part in wrap(line, width)]
    return "\n".join(lines if most is None or len(lines) <= most else [*lines[:most], "…"])


def titled(figure: Figure, *lines: str) -> None:
    """Lines above a figure, wrapped to its width."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    for share in (13, 12, 11, 10, 9, 8):  # letters an inch: wide ones, such as digits and capitals, are fewer
        width = round(share * figure.get_figwidth())
        title = figure.suptitle(literal("\n".join(wrapped(line, width) for line in lines if line)), fontsize=10)
        if title.get_window_extent(renderer).width < 0.98 * figure.bbox.width:
            return


def plain(axes: Axes) -> None:
    """A quiet frame."""
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def limits(points: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """Of an axis on which points are to be told apart: intervals of few seeds may be many times as long.

    Args:
        points: that must be seen.
        ends: of intervals, which may run out of the frame, but not before they are as long as all that points span.
    """
    low, high = min(points), max(points)
    span = (high - low) or abs(high) * 0.01 or 1.0
    least = max(low - 1.2 * span, min([low, *ends]))
    most = min(high + 1.2 * span, max([high, *ends]))
    margin = 0.06 * (most - least) or span
    return least - margin, most + margin


def cut(ends: Sequence[float], shown: tuple[float, float]) -> bool:
    """Whether an interval runs out of the frame."""
    return any(not shown[0] <= end <= shown[1] for end in ends)


@dataclass(frozen=True)
class Bar:
    """An interval that is drawn.

    Args:
        place: on the other axis.
        low: its lower end.
        high: its upper end.
        colour: of the bar.
    """

    place: float
    low: float
    high: float
    colour: str


def point_on(axes: Axes, bars: Sequence[Bar], upright: bool) -> None:
    """Draw arrowheads in the frame where bars are cut by it; limits are set.

    Args:
        axes: of the bars.
        bars: that are there.
        upright: whether they are along y.
    """
    low, high = axes.get_ylim() if upright else axes.get_xlim()
    inside = 0.008 * (high - low)
    for bar in bars:
        ends = [(low + inside, ARROWS[upright][0])] if bar.low < low else []
        ends += [(high - inside, ARROWS[upright][1])] if bar.high > high else []
        for end, marker in ends:
            x, y = (bar.place, end) if upright else (end, bar.place)
            axes.plot(x, y, marker, color=bar.colour, markersize=6, zorder=5, clip_on=False)


def place_labels(figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str]]) -> None:
    """Write names beside points, where they cover neither points nor lines nor each other, and with a thread to the
    point where they are not nearest to their own.

    Args:
        figure: complete but for these.
        axes: of the points.
        labels: x, y and text of each.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    centres = [tuple(map(float, axes.transData.transform((x, y)))) for x, y, _ in labels]
    frame = axes.get_window_extent(renderer)
    taken = list(_drawn(axes))
    scale = 72 / figure.dpi
    for (x, y, text), centre in zip(labels, centres, strict=True):
        note = axes.annotate(literal(text), (x, y), xytext=(0, 0), textcoords="offset points", fontsize=8, va="bottom")
        size = note.get_window_extent(renderer)
        others = [other for other in centres if other != centre]
        left, bottom = _free(centre, others, size.width, size.height, taken, frame)
        box = Bbox.from_bounds(left, bottom, size.width, size.height)
        taken.append(box)
        note.set_position(((left - centre[0]) * scale, (bottom - centre[1]) * scale))
        if _away(box, centre) > _NEAR or _is_nearer(box, centre, others):
            end = min(max(centre[0], box.x0), box.x1), min(max(centre[1], box.y0), box.y1)
            axes.annotate(
                "",
                (x, y),
                xytext=((end[0] - centre[0]) * scale, (end[1] - centre[1]) * scale),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
            )


def _away(box: Bbox, point: Sequence[float]) -> float:
    """How far a point is from a box."""
    return math.hypot(
        max(box.x0 - point[0], 0, point[0] - box.x1),
        max(box.y0 - point[1], 0, point[1] - box.y1),
    )


def _is_nearer(box: Bbox, centre: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether a text may be taken for the name of another point."""
    return any(_away(box, other) < 1.5 * _away(box, centre) for other in others)


def _drawn(axes: Axes) -> Iterator[Bbox]:
    """What is drawn: boxes around markers, and along the lines between them, which are upright or level."""
    for line in axes.get_lines():
        points = [(float(x), float(y)) for x, y in axes.transData.transform(line.get_path().vertices)]
        if line.get_drawstyle() == "steps-post":
            points = [point for a, b in itertools.pairwise(points) for point in (a, (b[0], a[1]), b)]
        around = 7 if line.get_marker() not in ("None", "", None) else 1.5
        for (x, y), (other_x, other_y) in itertools.pairwise([*points[:1], *points]):
            yield Bbox.from_extents(
                min(x, other_x) - around, min(y, other_y) - around, max(x, other_x) + around, max(y, other_y) + around
            )


def _free(
    centre: Sequence[float],
    others: Sequence[Sequence[float]],
    width: float,
    height: float,
    taken: Sequence[Bbox],
    frame: Bbox,
) -> tuple[float, float]:
    """Where a text has room: its left and lower edge, in pixels; as near to its point as can be, and not to others."""
    best, fewest = (centre[0] + 8, centre[1]), math.inf
    for distance in (8, 14, 22, 32, 44, 60, 80, 110):
        for turn in range(16):
            angle = 2 * math.pi * turn / 16
            x = centre[0] + distance * math.cos(angle) + (math.cos(angle) - 1) / 2 * width
            y = centre[1] + distance * math.sin(angle) - height * (1 - math.sin(angle)) / 2
            box = Bbox.from_bounds(x, y, width, height)
            hits = 3.0 * (not _inside(box, frame)) + sum(box.overlaps(other) for other in taken)
            hits += _is_nearer(box, centre, others) / 2
            if hits < fewest:
                best, fewest = (x, y), hits
            if not hits:
                return x, y
    return best


def _inside(box: Bbox, frame: Bbox) -> bool:
    return bool(frame.x0 + 4 <= box.x0 and box.x1 <= frame.x1 and frame.y0 + 4 <= box.y0 and box.y1 <= frame.y1)

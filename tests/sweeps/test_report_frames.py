"""What the figures of a report have in their frames."""

from matplotlib.figure import Figure

from lit_t6.sweeps.report.drawing import _away, place_labels
from lit_t6.sweeps.report.figures import cells_figure, varied_figure
from lit_t6.sweeps.report.pareto import pareto_figure

from .reported import CELLS, SIZES, begun, found

VALUES = {
    "base": [1.00, 1.01, 1.02],
    "low": [1.01, 1.10, 1.19],  # the longest interval, in the first panel alone
    "high": [0.99, 1.00, 1.01],
    "wide": [0.95, 0.96, "diverged"],
}
"""Rank of queries is varied by low, base and high, that of keys by base and wide."""


def of_ranks(tmp_path, values=VALUES):
    study, _, folder = begun(tmp_path, values, {name: CELLS[name] for name in values}, seeds=[0, 1, 2])
    return found(study, folder)


def test_intervals_of_one_panel_are_not_cut_by_the_frame_of_another(tmp_path):
    figure = varied_figure(of_ranks(tmp_path))
    first, second = figure.axes[:2]
    bars = [line for line in first.get_lines() if list(line.get_xdata()) == [2, 2] and line.get_marker() == "None"]
    low, high = map(float, bars[0].get_ydata())
    for axes in (first, second):
        assert axes.get_ylim()[0] < low < high < axes.get_ylim()[1]


def test_means_of_fewer_seeds_are_said_to_be(tmp_path):
    of = of_ranks(tmp_path)
    for figure in (varied_figure(of), pareto_figure(of)):
        assert "Means leave out seeds that did not complete (1 of 4 cells)." in figure.get_suptitle().replace("\n", " ")
    (tmp_path / "whole").mkdir()
    whole = of_ranks(tmp_path / "whole", VALUES | {"wide": [0.95, 0.96, 0.97]})
    assert "leave out" not in varied_figure(whole).get_suptitle()


def test_no_mean_covers_its_seeds(tmp_path):
    axes = cells_figure(of_ranks(tmp_path)).axes[0]
    rows = {line.get_marker(): float(line.get_ydata()[0]) for line in axes.get_lines()[:3]}
    assert rows["o"] > rows["D"] + 0.2


def test_a_name_that_is_not_nearest_to_its_own_point_has_a_thread():
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    points = [(0.3 + 0.02 * (n % 3), 0.3 + 0.02 * (n // 3), f"name number {n}") for n in range(9)]
    points.append((0.8, 0.8, "alone"))
    for x, y, _ in points:
        axes.plot(x, y, "D")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    place_labels(figure, axes, points)
    threads = {note.xy for note in axes.texts if not note.get_text()}
    centres = {(x, y): axes.transData.transform((x, y)) for x, y, _ in points}
    astray = 0
    for note in axes.texts:
        if note.get_text():
            box = note.get_window_extent()
            nearest = min(centres, key=lambda point: _away(box, centres[point]))
            astray += nearest != note.xy
            assert nearest == note.xy or note.xy in threads
    assert astray  # or the test shows nothing
    assert (0.8, 0.8) not in threads


def test_cells_of_one_size_without_bars_stay_at_it(tmp_path):
    study, _, folder = begun(tmp_path, {name: VALUES[name][:1] for name in VALUES},
                             {name: CELLS[name] for name in VALUES}, seeds=[0])  # fmt: skip
    of = found(study, folder)
    lines = [line for line in pareto_figure(of).axes[0].get_lines() if line.get_marker() == "D"]
    assert {float(line.get_xdata()[0]) for line in lines} == {float(SIZES[name]) for name in VALUES}

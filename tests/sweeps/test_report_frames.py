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
    assert "not here" not in varied_figure(whole).get_suptitle()
    assert "leave out" not in varied_figure(whole).get_suptitle()


def arrows(axes):
    found = [line for line in axes.get_lines() if line.get_marker() in ("<", ">", "^", "v")]
    return {(line.get_marker(), float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in found}


def test_bars_that_are_cut_have_arrowheads_and_others_have_none(tmp_path):
    values = {"base": [1.0, 1.1], "low": [1.05, 1.07], "wide": [0.95, 1.16]}  # ± 0.64, ± 0.13, ± 1.33
    study, _, folder = begun(tmp_path, values, {name: CELLS[name] for name in values}, seeds=[0, 1])
    of = found(study, folder)
    left = cells_figure(of).axes[0]
    low, high = left.get_xlim()
    cut = {(end, place) for place, cell in enumerate(of.cells) for end in ("<", ">")
           if (cell.value.low < low if end == "<" else cell.value.high > high)}  # fmt: skip
    assert ("<", 2) in cut
    assert len(cut) < 6
    assert {(marker, y) for marker, _, y in arrows(left)} == cut
    assert all(low < x < high for _, x, _ in arrows(left))
    assert "Arrowheads: bars go on outside the frame." in cells_figure(of).get_suptitle().replace("\n", " ")
    assert {(marker, x) for marker, x, _ in arrows(pareto_figure(of).axes[0])} >= {("v", 1700.0), ("^", 1700.0)}
    assert {marker for axes in varied_figure(of).axes for marker, _, _ in arrows(axes)} == {"v", "^"}


def test_cells_on_no_axis_are_named(tmp_path):
    values = VALUES | {"alone": [1.0, 1.1, 1.2]}
    cells = {name: CELLS[name] for name in VALUES} | {
        "alone": {"model.attention.rank_q": 3, "model.attention.rank_k": 5}
    }
    study, _, folder = begun(tmp_path, values, cells, seeds=[0, 1, 2])
    title = varied_figure(found(study, folder)).get_suptitle().replace("\n", " ")
    assert title.endswith("On no line with another cell, so not here: alone.")


def test_names_do_not_touch_the_edge(tmp_path):
    figure = cells_figure(of_ranks(tmp_path))
    figure.canvas.draw()
    assert min(label.get_window_extent().x0 for label in figure.axes[0].get_yticklabels()) > 0.1 * figure.dpi


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

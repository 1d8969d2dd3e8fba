"""What the figures of a report have in their frames."""

from lit_t6.sweeps.report.figures import cells_figure, varied_figure
from lit_t6.sweeps.report.pareto import pareto_figure

from .reported import CELLS, begun, found

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

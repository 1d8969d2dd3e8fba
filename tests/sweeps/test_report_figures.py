"""Figures of reports."""

import math

from lit_t6.sweeps.report.command import sweep_report
from lit_t6.sweeps.report.drawing import wrapped
from lit_t6.sweeps.report.figures import cells_figure, varied_figure
from lit_t6.sweeps.report.learning import curves_figure
from lit_t6.sweeps.report.varied import axes_of

from .reported import VALUES, begun, found, of_cells, record, write_events


def test_lines_join_what_differs_in_nothing_else(tmp_path):
    study, _, folder = begun(tmp_path)
    axes = {axis.label: axis for axis in axes_of(found(study, folder))}
    assert {name: [cell.name for cell in line] for name, line in axes["rank_q"].lines.items()} == {
        "rank_k = 2": ["low", "base", "high"]
    }
    assert {name: [cell.name for cell in line] for name, line in axes["rank_k"].lines.items()} == {
        "rank_q = 6": ["base", "wide"]
    }


def test_ranks_that_go_together_are_one(tmp_path):
    both = ("model.attention.rank_k", "model.attention.rank_v")
    cells = {name: dict.fromkeys(both, rank) for name, rank in (("base", 1), ("two", 2))}
    study, _, folder = begun(tmp_path, {"base": [1.0, 1.1], "two": [0.9, 1.0]}, cells, seeds=[0, 1])
    (axis,) = axes_of(found(study, folder))
    assert axis.label == "rank_k = rank_v"


def test_a_training_that_diverged_leaves_the_others_curves_readable(tmp_path):
    _, _, folder = begun(tmp_path, {**VALUES, "bad": ["diverged"] * 4})
    write_events(folder / "bad/seed-0", math.nan, steps=(9, 19, 29, 39))
    write_events(folder / "bad/seed-1", math.inf, steps=(9, 19, 29, 39))
    write_events(folder / "bad/seed-2", 1e6, steps=(9, 19, 29, 39))
    sweep_report([str(folder)], output=str(tmp_path / "report"))
    assert (tmp_path / "report/curves.png").exists()


def test_a_cross_is_where_a_trial_ended_and_the_end_has_the_scale_of_those_that_came_there(tmp_path):
    records = {("a", seed): record() for seed in (0, 1)} | {("b", 0): record(), ("b", 1): record(outcome="diverged")}
    curves = {
        f"{cell}/seed-{seed}": {"val/bits_per_byte": {step: 2.0 - step / 100 for step in (10, 20, 30, 40)}}
        for cell, seed in records
    }
    curves["b/seed-1"] = {"val/bits_per_byte": {10: 1.9, 20: 500.0}}
    whole, end = curves_figure(of_cells(tmp_path, records), curves).axes
    assert [tuple(map(float, line.get_xydata()[0])) for line in whole.get_lines() if line.get_marker() == "x"] == [
        (20.0, 500.0)
    ]
    assert end.get_ylim()[1] < 2.0


def test_curves_of_which_only_the_ends_are_left(tmp_path):
    curves = {"a/seed-0": {"val/bits_per_byte": {70: 1.0, 80: 0.9, 90: 0.8, 100: 0.7}}}
    assert curves_figure(of_cells(tmp_path, {("a", 0): record()}), curves) is not None


def test_no_difference_is_in_the_frame(tmp_path):
    records = {("a", seed): record(1.0 + seed / 1000) for seed in range(3)}
    records |= {("b", seed): record(2.0 + seed / 500) for seed in range(3)}
    low, high = cells_figure(of_cells(tmp_path, records, baseline="a")).axes[1].get_xlim()
    assert low < 0 < 1.002 < high


def test_more_cells_than_a_figure_has_room_for(tmp_path):
    records = {(f"cell number {number} of a study " + "x" * 60, 0): record() for number in range(45)}
    figure = cells_figure(of_cells(tmp_path, records))
    assert "The first 40 of 45 cells." in figure.get_suptitle()
    figure.canvas.draw()
    assert figure.axes[0].get_position().width > 0.4


def test_long_names_leave_room_for_curves_and_none_is_left_out(tmp_path):
    records = {(name, seed): record() for name in ("x" * 100, "_under", "short") for seed in (0, 1)}
    curve = {"val/bits_per_byte": {step: 2.0 - step / 100 for step in (10, 20, 30, 40)}}
    figure = curves_figure(of_cells(tmp_path, records), {f"{cell}/seed-{seed}": curve for cell, seed in records})
    figure.canvas.draw()
    assert all(axes.get_position().width > 0.25 for axes in figure.axes)
    assert len(figure.legends[0].get_texts()) == 3


def test_many_lines_can_be_told_apart_and_are_not_under_their_legend(tmp_path):
    ranks = [(q, k) for q in (1, 2) for k in range(1, 10)]
    cells = {f"{q},{k}": {"model.attention.rank_q": q, "model.attention.rank_k": k} for q, k in ranks}
    figure = varied_figure(of_cells(tmp_path, {(cell, 0): record(1 / len(cell)) for cell in cells}, cells=cells))
    axes = figure.axes[0]
    figure.canvas.draw()
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines() if line.get_marker() == "D"}
    assert len(looks) == 9
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


def test_a_name_of_many_lines_is_cut():
    assert wrapped("a\n" + "b " * 9, 6, most=2) == "a\nb b b\n…"

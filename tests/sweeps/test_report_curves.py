"""Learning curves of cells of which some seeds did not complete."""

import pytest

from lit_t6.sweeps.report.findings import findings
from lit_t6.sweeps.report.learning import curves_figure

from .ledgers import make_study

STEPS = (10, 20, 30, 40)


def drawn(tmp_path, outcomes, curves=None):
    """The figure of a study whose trials came to these outcomes, by cell."""
    cells = {cell: {"x.y": number} for number, cell in enumerate(outcomes)}
    study = make_study(tmp_path, cells=cells, seeds=list(range(len(next(iter(outcomes.values()))))))
    jobs = {f"{cell}/seed-{seed}": outcome for cell, each in outcomes.items() for seed, outcome in enumerate(each)}
    records = {key: {"outcome": o, "value": 1.0 if o == "completed" else None} for key, o in jobs.items()}
    falling = {key: {step: 2.0 - step / 100 + int(key[-1]) / 10 for step in STEPS} for key in jobs}
    curves = {**falling, **(curves or {})}
    return curves_figure(findings(study, records), {key: {"val/bits_per_byte": each} for key, each in curves.items()})


def lines(axes, marker="None"):
    return [line for line in axes.get_lines() if line.get_marker() == marker]


@pytest.mark.parametrize("outcome", ["diverged", "failed", "pruned", "out_of_memory"])
def test_a_seed_that_did_not_complete_is_in_no_mean_and_no_band(tmp_path, outcome):
    figure = drawn(tmp_path, {"a": ["completed", "completed", outcome]}, {"a/seed-2": {10: 5.0, 20: 7.0}})
    whole = figure.axes[0]
    mean, gone = lines(whole)
    assert [float(y) for y in mean.get_ydata()] == pytest.approx([2.05 - step / 100 for step in STEPS])
    (band,) = whole.collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(2.0)
    assert [float(y) for y in gone.get_ydata()] == [5.0, 7.0]
    assert (gone.get_linestyle(), gone.get_color()) == ("--", mean.get_color())
    assert gone.get_linewidth() < mean.get_linewidth()


def test_the_legend_says_how_many(tmp_path):
    outcomes = {"a": ["completed", "diverged", "diverged"], "b": ["completed"] * 3, "c": ["diverged"] * 3}
    figure = drawn(tmp_path, outcomes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("a\n1/3 (2 diverged)", "b", "c\n0/3 (3 diverged)")
    ]
    assert "Thin dashed lines to a cross: diverged, in no mean or band." in figure.get_suptitle().replace("\n", " ")


def test_what_is_not_a_number_from_the_start_is_counted_too(tmp_path):
    figure = drawn(tmp_path, {"a": ["completed", "diverged"]}, {"a/seed-1": {10: float("nan")}})
    assert figure.legends[0].get_texts()[0].get_text() == "a\n1/2 (1 diverged)"
    assert len(lines(figure.axes[0])) == 1


def test_what_diverged_far_leaves_the_frame_and_not_the_others_flat(tmp_path):
    figure = drawn(tmp_path, {"a": ["completed", "diverged"]}, {"a/seed-1": {10: 2.0, 20: 1e6}})
    assert figure.axes[0].get_ylim()[1] < 3
    assert "Some leave the frame." in figure.get_suptitle()
    assert "Some leave" not in drawn(tmp_path, {"a": ["completed", "diverged"]}).get_suptitle()


def test_sixteen_cells_have_no_dashes_of_trials_that_did_not_complete(tmp_path):
    figure = drawn(tmp_path, {f"cell {number}": ["completed"] for number in range(16)})
    assert "--" not in {line.get_linestyle() for line in lines(figure.axes[0])}


def test_what_ended_before_there_was_a_curve_is_said_to_have(tmp_path):
    outcomes = {"a": ["completed"] * 2, "b": ["diverged"] * 2, "c": ["completed", "out_of_memory"]}
    figure = drawn(tmp_path, outcomes, {"b/seed-0": {}, "b/seed-1": {}, "c/seed-1": {}})
    title = figure.get_suptitle().replace("\n", " ")
    assert "Diverged before their first validation: b. Out of memory before their first validation: c/seed-1." in title
    assert "cross" not in title

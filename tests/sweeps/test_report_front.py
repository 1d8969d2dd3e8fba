"""What a report says of cells that the seeds cannot tell apart."""

import pytest

from lit_t6.sweeps.report.comparison import beside_best, front_of
from lit_t6.sweeps.report.document import answer
from lit_t6.sweeps.report.pareto import pareto_figure

from .reported import of_values

SIZES = {"best": 300, "near": 200, "far": 100, "single": 400}
VALUES = {
    "best": [1.00, 1.10, 1.20, 1.14],
    "near": [1.03, 1.09, 1.22, 1.16],
    "far": [1.50, 1.61, 1.70, 1.65],
    "single": [1.3, None, None, None],
}


def test_the_best_one_is_named_with_those_that_are_not_told_apart_from_it(tmp_path):
    of = of_values(tmp_path, VALUES, SIZES)
    beside = beside_best(of)
    assert (beside.worse, beside.alike, beside.untested) == (("far",), ("near",), ("single",))
    said = answer(of)[0]
    assert said.startswith("* Best: **best**, val/bits_per_byte 1.1100 (95 % interval ")
    assert said.endswith(
        "). Not told apart from it at the level of 5 % (paired t-test over seeds, Holm-corrected for 3 comparisons of "
        "any two cells): near. Worse: far. Not tested, for want of seeds: single."
    )


def test_where_all_others_are_worse(tmp_path):
    said = answer(of_values(tmp_path, {name: VALUES[name] for name in ("best", "far")}, SIZES))[0]
    assert said.endswith(
        "Worse at the level of 5 % (paired t-test over seeds, Holm-corrected for 1 comparison of any two cells): far."
    )


def test_the_more_comparisons_the_less_is_told(tmp_path):
    """Those that are not of the best one count too: another cell might have come out best."""
    shifted = {"near": [0.02, 0.01, 0.03, 0.02]}  # p = 0.016 of itself
    values = {"best": VALUES["best"]}
    values["near"] = [a + b for a, b in zip(values["best"], shifted["near"], strict=True)]
    assert beside_best(of_values(tmp_path, values, SIZES)).worse == ("near",)
    noise = [0.3, -0.2, 0.5, 0.1]
    more = {f"noise-{n}": [a + b * (n + 1) for a, b in zip(values["best"], noise, strict=True)] for n in range(2)}
    sizes = SIZES | dict.fromkeys(more, 500)
    assert beside_best(of_values(tmp_path, values | more, sizes)).worse == ()


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_are_said_to_be_too_few(tmp_path, seeds):
    of = of_values(tmp_path, {name: VALUES[name][:seeds] for name in ("best", "near", "far")}, SIZES)
    best, front = answer(of)
    if seeds == 1:
        assert best.endswith("Whether others are as good cannot be tested: that takes two seeds of each.")
        assert front.endswith("Whether that is more than noise cannot be tested: that takes two seeds of each.")
    else:
        assert "Holm-corrected for 3 comparisons of any two cells" in best
        assert best.endswith("Two seeds tell hardly anything apart.")


def test_a_single_cell_has_no_rival(tmp_path):
    assert "told apart" not in answer(of_values(tmp_path, {"best": VALUES["best"]}, SIZES))[0]
    assert "cannot be tested" not in answer(of_values(tmp_path, {"best": VALUES["best"]}, SIZES))[0]


def test_the_front_tells_who_may_be_on_it_by_chance(tmp_path):
    of = of_values(tmp_path, VALUES, SIZES)
    front = front_of(of)
    assert [cell.name for cell in front.members] == ["far", "near", "best"]
    assert front.doubtful == {"best"}  # "near" caches less and may be as good; "far" caches least, "near" beats it
    assert front.tests == 3
    assert answer(of)[-1] == (
        "* No other one beats these in both, mean val/bits_per_byte and bytes cached of a token: far (100 bytes), "
        "near (200 bytes), best (300 bytes). Within noise: best; a cell that caches no more is not told apart at the "
        "level of 5 %, Holm-corrected for 3 comparisons."
    )


def test_members_of_the_front_that_cannot_be_tested_are_said_to_be_so(tmp_path):
    """Where others can: their words are not those of what was tested."""
    values = VALUES | {"single": [0.9, None, None, None]}  # the best mean, and the most bytes
    of = of_values(tmp_path, values, SIZES)
    front = front_of(of)
    assert [cell.name for cell in front.members] == ["far", "near", "best", "single"]
    assert (front.doubtful, front.untested, front.tests) == ({"best"}, {"single"}, 3)
    assert answer(of)[-1].endswith(
        "Within noise: best; a cell that caches no more is not told apart at the level of 5 %, Holm-corrected for 3 "
        "comparisons. Not tested, for want of seeds: single."
    )
    title = pareto_figure(of).get_suptitle().replace("\n", " ")
    assert "caches no more (paired t, Holm, 5 %), or not tested, for want of seeds." in title
    sure = of_values(tmp_path, {name: values[name] for name in ("near", "far", "single")}, SIZES)
    assert (front_of(sure).doubtful, front_of(sure).untested) == (frozenset(), {"single"})
    assert answer(sure)[-1].endswith("single (400 bytes). Not tested, for want of seeds: single.")
    assert "hollow: not tested, for want of seeds." in pareto_figure(sure).get_suptitle().replace("\n", " ")
    assert diamonds(pareto_figure(sure))[400] == "white"


def test_where_more_is_better_the_front_is_as_sure(tmp_path):
    values = {name: [-value for value in VALUES[name]] for name in ("best", "near", "far")}
    of = of_values(tmp_path, values, SIZES, objective={"metric": "val/bits_per_byte", "direction": "maximize"})
    assert front_of(of).doubtful == {"best"}
    assert beside_best(of).worse == ("far",)


def diamonds(figure):
    lines = [line for line in figure.axes[0].get_lines() if line.get_marker() == "D"]
    return {float(line.get_xdata()[0]): line.get_markerfacecolor() for line in lines}


def test_the_figure_has_hollow_members_and_says_so(tmp_path):
    figure = pareto_figure(of_values(tmp_path, VALUES, SIZES))
    seen = diamonds(figure)
    assert (seen[300] == "white", seen[200] == "white", seen[100] == "white") == (True, False, False)
    assert "hollow: within noise" in figure.get_suptitle().replace("\n", " ")
    assert "bytes are exact" in figure.get_suptitle().replace("\n", " ")


def test_a_figure_of_one_seed_says_that_nothing_is_tested(tmp_path):
    figure = pareto_figure(of_values(tmp_path, {name: values[:1] for name, values in VALUES.items()}, SIZES))
    assert "white" not in diamonds(figure).values()
    assert "too few seeds to test it" in figure.get_suptitle().replace("\n", " ")


def test_bars_of_equal_sizes_do_not_cover_each_other(tmp_path):
    sizes = {"best": 100, "near": 100, "far": 200}
    figure = pareto_figure(of_values(tmp_path, {name: VALUES[name] for name in sizes}, sizes))
    assert len(diamonds(figure)) == 3
    assert 100.0 in diamonds(figure)

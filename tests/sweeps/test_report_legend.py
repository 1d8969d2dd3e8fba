"""What stands under the table of a report."""

from dataclasses import replace

import pytest

from lit_t6.sweeps.report.document import document
from lit_t6.sweeps.report.legend import legend

from .reported import of_values

VALUES = {"a": [1.0, 1.1, 1.2], "b": [1.1, 1.3, 1.2], "c": [1.4, 1.5, None]}


def test_a_list_of_what_columns_mean(tmp_path):
    lines = legend(of_values(tmp_path, VALUES, baseline="a", record=["val/loss"]))
    assert all(line.startswith("* ") for line in lines)  # lines without a mark are one paragraph in Markdown
    text = "\n".join(lines)
    assert "standard errors to each side: 12.7 with 2 seeds, 4.3 with 3 seeds" in text
    assert "below zero is better" in text
    assert "two-sided paired t-test of them, by Holm's method corrected for the 2 comparisons of this table" in text
    assert "below 0.05 a cell differs" in text
    assert "* val/loss: nats a token." in lines


def test_what_is_better_goes_by_the_objective(tmp_path):
    of = of_values(tmp_path, VALUES, baseline="a", objective={"metric": "val/accuracy", "direction": "maximize"})
    assert "above zero is better" in "\n".join(legend(of))


def test_what_matched_means(tmp_path):
    sizes = {"a": 1000, "b": 1006, "c": 996}
    of = of_values(tmp_path, VALUES, sizes, baseline="a", match="parameters")
    assert (
        "* Parameters are matched: each cell has the head count that brings them nearest to those of a; all are within "
        "0.6 % of them." in legend(of)
    )
    of = of_values(tmp_path, VALUES, sizes, baseline="b", match="parameters")
    assert "nearest to those of c; all are within 1 % of them." in "\n".join(legend(replace(of, matched_to="c")))
    of = of_values(tmp_path, VALUES, sizes, baseline="a", match="parameters", match_to=2000)
    assert "nearest to 2,000; all are within 50 % of them." in "\n".join(legend(of))


def test_what_is_not_matched_is_said(tmp_path):
    text = "\n".join(legend(of_values(tmp_path, VALUES, {"a": 1000, "b": 1500})))
    assert "Parameters are not matched by the study: the largest cell has 50 % more than the smallest." in text
    assert "matched" not in "\n".join(legend(of_values(tmp_path, VALUES)))


@pytest.mark.parametrize(("largest", "said"), [(1994, "99 %"), (1996, "100 %"), (12_500, "1,150 %")])
def test_how_far_parameters_differ_has_no_exponent(tmp_path, largest, said):
    text = "\n".join(legend(of_values(tmp_path, VALUES, {"a": 1000, "b": largest})))
    assert f"the largest cell has {said} more than the smallest" in text


def test_the_number_of_seeds_stands_above_the_table(tmp_path):
    text = document(of_values(tmp_path, VALUES), [], {})
    assert "9 trials of 3 cells with seeds 0, 1, 2: 8 completed, 1 diverged." in text
    assert "3 trials of 3 cells with seed 0:" in document(
        of_values(tmp_path, {name: each[:1] for name, each in VALUES.items()}), [], {}
    )

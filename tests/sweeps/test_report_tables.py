"""Tables of reports."""

import csv
import io
import math

from lit_t6.sweeps.report.figures import cells_figure
from lit_t6.sweeps.report.legend import legend
from lit_t6.sweeps.report.tables import alike, cells_csv, cells_markdown, trials_csv

from .reported import of_cells, record, rows


def test_a_figure_that_is_no_number_has_no_mean(tmp_path):
    records = {("a", seed): record(metrics={"val/loss": value}) for seed, value in enumerate((math.nan, 2.0, math.inf))}
    (row,) = rows(cells_csv(of_cells(tmp_path, records))).values()
    assert (row["val/loss mean"], row["val/loss standard_deviation"]) == ("2.0", "")


def test_of_equals_the_smaller_is_no_worse(tmp_path):
    facts = {"a": 200, "b": 100, "c": 300}
    records = {(cell, 0): record(facts={"cache_bytes_per_token": size}) for cell, size in facts.items()}
    assert [cell.name for cell in of_cells(tmp_path, records).pareto()] == ["b"]


def test_what_a_spreadsheet_reads_is_no_formula_and_one_row(tmp_path):
    said = {("a", 0): "=1+1", ("a", 1): "@x", ("a", 2): "10%\r20%\rkilled", ("a", 3): "-9"}
    records = {key: record(outcome="failed", reason=reason) for key, reason in said.items()}
    text = trials_csv(of_cells(tmp_path, records))
    assert "\r" not in text
    assert [row["reason"] for row in csv.DictReader(io.StringIO(text))] == ["'=1+1", "'@x", "10%\n20%\nkilled", "'-9"]


def test_no_two_columns_have_the_same_name(tmp_path):
    cells = {name: {"model.attention.num_heads": heads} for name, heads in (("a", 2), ("b", 4))}
    records = {(name, 0): record(facts={"num_heads": heads}) for name, heads in (("a", 2), ("b", 4))}
    head, *lines = csv.reader(io.StringIO(cells_csv(of_cells(tmp_path, records, cells=cells))))
    assert len(set(head)) == len(head)
    assert [line[head.index("num_heads")] for line in lines] == ["2", "4"]


def test_numbers_of_a_column_have_as_many_decimals():
    assert list(alike({"a": 0.857, "b": 0.8574, "c": None}).values()) == ["0.8570", "0.8574", "–"]
    assert list(alike({"a": 4960.1, "b": 998.25}).values()) == ["4,960", "998"]
    assert list(alike({"a": 4960.1, "b": 9.83}).values()) == ["4,960.1", "9.8"]
    assert list(alike({"a": 3e-5, "b": 1e-3}).values()) == ["3.000e-05", "1.000e-03"]
    assert list(alike({"a": 4, "b": "TPA"}).values()) == ["4", "TPA"]


def test_bold_is_the_best_and_the_baseline_is_called_so(tmp_path):
    values = {"a": 1.0, "b": 0.5, "c": 0.7}
    of = of_cells(
        tmp_path, {(name, seed): record(v + seed) for name, v in values.items() for seed in (0, 1)}, baseline="a"
    )
    names = [line.split("|")[1].strip() for line in cells_markdown(of)[2:]]
    assert names == ["a (baseline)", "**b**", "c"]
    assert legend(of)[0] == "* Bold: the best mean."
    figure = cells_figure(of)
    labels = figure.axes[0].get_yticklabels()
    assert [(each.get_text(), each.get_fontweight()) for each in labels] == [
        ("a (baseline)", "normal"),
        ("b", "bold"),
        ("c", "normal"),
    ]
    assert "Bold: the best mean." in figure.get_suptitle().replace("\n", " ")


def test_a_single_cell_is_not_the_best_of_any(tmp_path):
    of = of_cells(tmp_path, {("a", 0): record()})
    assert "**" not in "".join(cells_markdown(of))
    assert not any("Bold" in line for line in legend(of))


def test_speeds_are_said_to_depend_on_what_else_ran(tmp_path):
    of = of_cells(tmp_path, {("a", 0): record(metrics={"perf/tokens_per_sec": 9.0})})
    assert any(
        line.startswith("* perf/tokens_per_sec: at the end of each trial, and slower where") for line in legend(of)
    )
    assert not any("perf/" in line for line in legend(of_cells(tmp_path, {("a", 0): record()})))

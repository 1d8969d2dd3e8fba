"""Tables of reports, for programs."""

import csv
import io
import math

from lit_t6.sweeps.report.tables import cells_csv, trials_csv

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

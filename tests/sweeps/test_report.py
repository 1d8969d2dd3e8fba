import csv
import io
import math
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from lit_t6.cli import run
from lit_t6.sweeps.pack import pack
from lit_t6.sweeps.report.command import _typed, sweep_report
from lit_t6.sweeps.report.drawing import wrapped
from lit_t6.sweeps.report.figures import cells_figure, varied_figure
from lit_t6.sweeps.report.findings import findings
from lit_t6.sweeps.report.learning import curves_figure
from lit_t6.sweeps.report.tables import cells_csv, trials_csv
from lit_t6.sweeps.report.varied import axes_of

from .ledgers import make_study
from .reported import VALUES, begun, found, write_events


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_up")
    study, ledger, of = begun(folder)
    output = folder / "report"
    sweep_report([str(of)], output=str(output))
    return study, ledger, of, output


def rows(text):
    return {row["cell"]: row for row in csv.DictReader(io.StringIO(text))}


def test_the_table_has_what_is_computed_by_hand(made_up):
    table = rows((made_up[3] / "cells.csv").read_text())
    base, low = table["base"], table["low"]
    assert float(base["mean"]) == pytest.approx(1.11)
    assert float(base["standard_deviation"]) == pytest.approx(0.0840634)  # √(0.0212 / 3)
    assert float(base["low"]) == pytest.approx(1.11 - 3.182446305 * 0.0840634 / 2, rel=1e-5)
    assert base["difference"] == ""
    # 0.05, 0.04, 0.07, 0.04: mean 0.05, deviation √(0.0006 / 3)
    assert float(low["difference"]) == pytest.approx(0.05)
    assert float(low["difference_deviation"]) == pytest.approx(0.0141421, rel=1e-5)
    assert float(low["difference_low"]) == pytest.approx(0.05 - 3.182446305 * 0.0141421 / 2, rel=1e-4)
    assert float(low["difference_high"]) == pytest.approx(0.05 + 3.182446305 * 0.0141421 / 2, rel=1e-4)
    assert float(low["p"]) == pytest.approx(0.0058, abs=1e-4)
    assert [table[name]["pairs"] for name in ("low", "high", "wide", "bad")] == ["4", "4", "3", ""]
    ps = sorted(float(table[name]["p"]) for name in ("low", "high", "wide"))
    assert min(float(table[name]["p_holm"]) for name in ("low", "high", "wide")) == pytest.approx(3 * ps[0])
    assert (base["rank_q"], base["cache_bytes_per_token"], base["num_parameters"]) == ("6", "960", "1960")
    assert float(base["val/loss mean"]) == pytest.approx(2.22)


def test_the_table_against_scipy(made_up):
    stats = pytest.importorskip("scipy.stats", reason="scipy is a package for tests: pip install '.[dev]'")
    table = rows((made_up[3] / "cells.csv").read_text())
    for name in ("low", "high", "wide"):
        pairs = [(v, b) for v, b in zip(VALUES[name], VALUES["base"], strict=True) if not isinstance(v, str)]
        theirs = stats.ttest_rel(*zip(*pairs, strict=True))
        assert float(table[name]["p"]) == pytest.approx(theirs.pvalue, rel=1e-9)
        assert float(table[name]["difference_low"]) == pytest.approx(theirs.confidence_interval().low, rel=1e-9)


def test_what_failed_stays_as_such(made_up):
    table = rows((made_up[3] / "cells.csv").read_text())
    assert [table["bad"][k] for k in ("diverged", "failed", "out_of_memory", "completed", "mean")] == [
        *("2", "1", "1", "0", "")
    ]
    assert table["wide"]["pruned"] == "1"
    report = (made_up[3] / "report.md").read_text()
    assert "0/4 (2 diverged, 1 failed, 1 out of memory)" in report
    assert "3/4 (1 pruned)" in report
    assert "* bad/seed-0: diverged. it diverged" in report
    assert "* wide/seed-1: pruned, last at 1.5000. it pruned" in report


def test_the_report_says_what_was_asked_and_how(made_up):
    report = (made_up[3] / "report.md").read_text()
    assert "**Question:** Which rank?" in report
    assert "Best: **wide**, val/bits_per_byte 1.0700 (95 % interval" in report
    assert "), of the 3/4 (1 pruned) that completed." in report
    assert "corrected for the 3 comparisons" in report
    assert "low (480 bytes), base (960 bytes), high (1,300 bytes), wide (1,700 bytes)" in report
    assert "python cli.py sweep report" in report
    assert "torch 2.13.0" in report
    assert "1 × CPU" in report


def test_an_archive_gives_the_same_bytes(made_up, tmp_path):
    _, ledger, of, output = made_up
    pack(ledger, of, tmp_path / "study.tar.gz")
    run(["sweep", "report", "--from", str(tmp_path / "study.tar.gz"), "--output", str(tmp_path / "again")])
    for name in ("cells.csv", "trials.csv", "cells.png", "varied.png", "pareto.png", "curves.png"):
        assert (tmp_path / "again" / name).read_bytes() == (output / name).read_bytes(), name
    assert not (tmp_path / "logs").exists()


def test_without_a_storage_the_records_do(made_up, tmp_path):
    study, _, of, output = made_up
    kept = tmp_path / "made_up"
    for path in of.rglob("*"):
        if path.is_file() and path.name != "journal.log":
            (kept / path.relative_to(of)).parent.mkdir(parents=True, exist_ok=True)
            (kept / path.relative_to(of)).write_bytes(path.read_bytes())
    assert cells_csv(found(study, kept)) == (output / "cells.csv").read_text()


def test_a_study_that_was_not_begun_is_refused(tmp_path):
    study, _, folder = begun(tmp_path, values={name: [None] * 4 for name in VALUES})
    (folder / "journal.log").unlink()
    with pytest.raises(ValueError, match="the study has not been begun here"):
        found(study, folder)


def test_a_study_under_way(tmp_path):
    values = {name: [None] * 4 for name in VALUES}
    begun(tmp_path, values | {"low": [1.0, None, None, None]})
    output = tmp_path / "report"
    sweep_report([str(tmp_path / "logs/sweeps/made_up")], output=str(output))
    report = (output / "report.md").read_text()
    assert "19 unfinished, 1 completed" in report
    assert "The study is not over" in report
    assert rows((output / "cells.csv").read_text())["low"]["mean"] == "1.0"


def test_where_nothing_completed(tmp_path):
    values = {name: ["diverged"] * 2 for name in VALUES}
    begun(tmp_path, values, seeds=[0, 1])
    output = tmp_path / "report"
    sweep_report([str(tmp_path / "logs/sweeps/made_up")], output=str(output))
    report = (output / "report.md").read_text()
    assert "No trial completed: there is nothing to compare." in report
    assert "0/2 (2 diverged)" in report
    assert {path.name for path in output.glob("*.png")} == {"curves.png"}


def test_one_seed_has_no_interval(tmp_path):
    begun(tmp_path, {name: [1.0 + 0.1 * n] for n, name in enumerate(VALUES)}, seeds=[0])
    output = tmp_path / "report"
    sweep_report([str(tmp_path / "logs/sweeps/made_up")], output=str(output))
    report = (output / "report.md").read_text()
    assert "Differences to base cannot be tested: that takes two seeds that both completed." in report
    assert "interval" not in report.splitlines()[6]
    assert "0 comparisons" not in report
    row = rows((output / "cells.csv").read_text())["low"]
    assert (row["mean"], row["low"], row["difference_low"], row["p"]) == ("1.1", "", "", "")
    assert float(row["difference"]) == pytest.approx(0.1)


def test_lines_join_what_differs_in_nothing_else(made_up):
    axes = {axis.label: axis for axis in axes_of(found(made_up[0], made_up[2]))}
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


def test_tensorboard_reads_tables_and_figures_back(made_up):
    summary = EventAccumulator(str(made_up[3] / "tensorboard/summary"), size_guidance={"images": 0}).Reload()
    assert summary.Tags()["images"] == [f"report/{name}" for name in ("cells", "varied", "pareto", "curves")]
    for tag in summary.Tags()["images"]:
        (image,) = summary.Images(tag)
        assert image.encoded_image_string == (made_up[3] / f"{tag.removeprefix('report/')}.png").read_bytes()
        assert image.width > 500
    (text,) = summary.Tensors("report/table/text_summary")
    assert "| **base**" in text.tensor_proto.string_val[0].decode()


def test_tensorboard_has_every_trial_with_the_same_numbers(made_up):
    seen = {}
    for cell, values in VALUES.items():
        for seed, value in enumerate(values):
            events = EventAccumulator(str(made_up[3] / "tensorboard" / cell / f"seed-{seed}")).Reload()
            content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
            seen[cell, seed] = metadata.parse_session_start_info_plugin_data(content).hparams
            scalars = events.Tags()["scalars"]
            assert ("result/val/bits_per_byte" in scalars) == (not isinstance(value, str))
            assert [point.step for point in events.Scalars("val/bits_per_byte")] == [10, 20, 30]
    columns = {tuple(sorted(hparams)) for hparams in seen.values()}
    assert len(columns) == 1
    names = set(*columns) - {"cell"}
    assert {"rank_q", "rank_k", "num_parameters", "cache_bytes_per_token", "seed", "completed"} <= names
    for hparams in seen.values():
        assert all(hparams[name].HasField("number_value") for name in names)
    assert seen["bad", 0]["completed"].number_value == 0


def test_a_second_report_takes_the_place_of_the_first(made_up, tmp_path):
    of = str(made_up[2])
    for _ in range(2):
        sweep_report([of], output=str(tmp_path))
    assert len(list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))) == 21


@pytest.mark.parametrize(
    "address",
    ["postgresql://me:se/cr@et@host/studies", "postgresql://host/studies?password=secret", "mysql://me:a b@host/x"],
)
def test_no_password_is_published(address):
    told = _typed(["study.yaml"], {"storage": address}, {}, "logs")
    assert "host" in told
    assert not any(part in told for part in ("se/cr", "et@", "secret", "a b"))


def test_the_command_is_told_without_passwords():
    options = {"storage": "postgresql://me:secret@host/studies", "output": None}
    told = _typed(["a b.yaml"], options, {"seeds": [0, 1]}, "elsewhere")
    assert told == (
        "python cli.py sweep report 'a b.yaml' --storage postgresql://host/studies --seeds '[0, 1]' --logs elsewhere"
    )


def test_it_loads_no_pytorch():
    code = "import sys, lit_t6.sweeps.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def record(value=1.0, outcome="completed", **said):
    return {"outcome": outcome, "value": value if outcome == "completed" else None, **said}


def of_cells(tmp_path, records, **settings):
    """What a study found whose trials these are, by cell and seed."""
    cells = {cell: {"x.y": number} for number, (cell, _) in enumerate(dict.fromkeys(records))}
    study = make_study(tmp_path, **{"cells": cells, "seeds": sorted({seed for _, seed in records}), **settings})
    return findings(study, {f"{cell}/seed-{seed}": each for (cell, seed), each in records.items()})


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


def test_a_question_about_dollars(tmp_path):
    _, _, folder = begun(tmp_path)
    sweep_report([str(folder)], {"question": "Is $a_$ worth $5 or $6^?"}, output=str(tmp_path / "report"))
    assert "Is $a_$ worth $5 or $6^?" in (tmp_path / "report/report.md").read_text()


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


@pytest.mark.parametrize("journal", [True, False])
def test_values_do_not_change_their_names(tmp_path, journal):
    _, _, folder = begun(tmp_path)
    if not journal:
        (folder / "journal.log").unlink()
    with pytest.raises(ValueError, match="differ|other settings"):
        sweep_report([str(folder)], {"objective.metric": "val/loss"}, output=str(tmp_path / "report"))
    assert not (tmp_path / "report").exists()


def test_a_folder_that_was_renamed_is_the_one_that_is_meant(tmp_path):
    _, _, folder = begun(tmp_path)
    renamed = folder.rename(tmp_path / "kept")
    sweep_report([str(renamed)], output=str(tmp_path / "report"), logs=str(tmp_path / "logs"))
    assert "Best: **wide**" in (tmp_path / "report/report.md").read_text()

import subprocess
import sys

import pytest

from lit_t6.cli import run
from lit_t6.sweeps.pack import pack
from lit_t6.sweeps.report.command import _typed, sweep_report
from lit_t6.sweeps.report.tables import cells_csv

from .exact_statistics import exact_difference
from .reported import VALUES, begun, found, published, rows


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return published(tmp_path_factory.mktemp("made_up"))


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


def test_the_table_against_exact_figures(made_up):
    table = rows((made_up[3] / "cells.csv").read_text())
    for name in ("low", "high", "wide"):
        pairs = [(v, b) for v, b in zip(VALUES[name], VALUES["base"], strict=True) if not isinstance(v, str)]
        exact = exact_difference(*zip(*pairs, strict=True))
        assert float(table[name]["p"]) == pytest.approx(exact.p, rel=1e-9)
        assert float(table[name]["difference_low"]) == pytest.approx(exact.low, rel=1e-9)


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


def test_a_question_about_dollars(tmp_path):
    _, _, folder = begun(tmp_path)
    sweep_report([str(folder)], {"question": "Is $a_$ worth $5 or $6^?"}, output=str(tmp_path / "report"))
    assert "Is $a_$ worth $5 or $6^?" in (tmp_path / "report/report.md").read_text()


@pytest.mark.parametrize("journal", [True, False])
def test_values_do_not_change_their_names(tmp_path, journal):
    _, _, folder = begun(tmp_path)
    if not journal:
        (folder / "journal.log").unlink()
    with pytest.raises(ValueError, match="the study that was begun here is another one: objective"):
        sweep_report([str(folder)], {"objective.metric": "val/loss"}, output=str(tmp_path / "report"))
    assert not (tmp_path / "report").exists()


def test_a_folder_that_was_renamed_is_the_one_that_is_meant(tmp_path):
    _, _, folder = begun(tmp_path)
    renamed = folder.rename(tmp_path / "kept")
    sweep_report([str(renamed)], output=str(tmp_path / "report"), logs=str(tmp_path / "logs"))
    assert "Best: **wide**" in (tmp_path / "report/report.md").read_text()


def test_cells_that_were_matched_to_one_may_be_compared_with_another(tmp_path, capsys):
    of = begun(tmp_path, match="parameters")[2]
    run(["sweep", "report", str(of), "--baseline", "wide", "--output", str(tmp_path / "report")])
    table = rows((tmp_path / "report" / "cells.csv").read_text())
    assert float(table["base"]["difference"]) == pytest.approx(0.0433, abs=1e-4)  # of 0.05, 0.04, 0.04
    assert table["wide"]["difference"] == ""
    assert "nearest to those of base" in (tmp_path / "report" / "report.md").read_text()

import json

import pytest

from lit_t6.sweeps import load_study
from lit_t6.sweeps.preview import preview
from lit_t6.sweeps.preview_table import duration, print_preview
from lit_t6.training.planning.fit_reader import FitReader

from .studies import RANK, RANK_QUICK, study
from .test_rates import finish


@pytest.fixture(scope="module")
def reader():
    return FitReader()


@pytest.fixture(scope="module")
def quick(reader):
    return preview(load_study([RANK, RANK_QUICK]), workers=2, flops_per_second=1e9, reader=reader)


def test_facts_of_a_cell(quick):
    facts = quick.rows[1].facts
    assert (facts.mechanism, facts.num_heads, facts.head_dim) == ("TPA (6, 1, 1)", 17, 16)
    assert facts.cache_bytes_per_token == 2 * (17 + 16) * 2 * 4, "two factors of two layers in float32"
    assert (facts.num_steps, facts.num_tokens) == (40, 40 * 16 * 128)


def test_every_cell_is_a_row(quick, capsys):
    print_preview(quick)
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    row = next(line for line in lines if line[:1] == ["6,1,1"])
    flops = quick.rows[1].facts.flops
    assert row[1:7] == ["TPA", "(6,", "1,", "1),", "17", "×"]
    assert row[7:11] == ["16", "0.563", "1.005", "528"]
    assert row[11:15] == ["0.0819", f"{flops / 1e15:.3g}", str(round((6 + flops / 1e9) / 60)), "min"]
    assert len([line for line in lines if "TPA" in line[1:2]]) == 9


def test_figures_say_what_they_are_from(quick, capsys):
    print_preview(quick)
    printed = " ".join(capsys.readouterr().out.split())
    for said in (
        "rank-quick: Which ranks of queries",
        "18 trials: 9 cells, each with seeds 0, 1.",
        "Head counts are solved for the 560,128 parameters of cell 6,2,2; they come within 0.55 % of it.",
        "Time: FLOPs of training and validations over a rate, 1e+09 FLOP/s as stated, and 6 s for the start",
        "All 18 trials, 2 at a time: about",
        "Memory, of tensors on each device: weights, gradients and two moments of AdamW",
        "On a CPU the process itself takes about 0.7 GiB more.",
        "The first of them: python",
        "--model.attention.rank_q=6",
    ):
        assert said in printed


def test_the_whole_takes_all_trials_over_the_workers(quick):
    mean = sum(row.seconds for row in quick.rows) / 9
    assert quick.seconds == pytest.approx(mean * 18 / 2)


def test_it_can_be_json(quick, capsys):
    print_preview(quick, "json")
    plain = json.loads(capsys.readouterr().out)
    assert (plain["num_trials"], plain["workers"], plain["aimed_at_parameters"]) == (18, 2, 560128)
    assert plain["cells"][1]["options"]["model.attention.num_heads"] == 17
    assert plain["cells"][1]["parameters_over_aimed_at"] == pytest.approx(1, abs=0.01)


def test_times_of_finished_trials_come_first(tmp_path, reader, capsys):
    finish(tmp_path, "a", 0, 33)
    read = study(tmp_path, "cells: {a: {}, b: {model.num_layers: 2}}\n")
    seen = preview(read, folder=tmp_path, reader=reader)
    assert seen.rows[0].seconds == 33
    assert seen.rows[1].seconds > 33
    print_preview(seen)
    assert "Time: as 1 finished trial of this study took, of other cells by their FLOPs." in capsys.readouterr().out


def test_what_takes_longer_than_its_limit_is_marked(tmp_path, reader, capsys):
    """The estimate is of the whole training: that it would be cut off is the point."""
    cells = "cells: {a: {trainer.max_steps: 800}, b: {}}\n"
    flops = preview(study(tmp_path, cells), flops_per_second=1e9, reader=reader).rows[0].facts.flops
    limited = study(tmp_path, f"time_limit: 1m40s\n{cells}")
    seen = preview(limited, flops_per_second=flops / 600, reader=reader)
    assert seen.rows[0].seconds == pytest.approx(606)
    assert [seen.is_too_long(row) for row in seen.rows] == [True, False]
    print_preview(seen)
    printed = capsys.readouterr().out
    assert "! 10 min" in printed
    assert "! longer than time_limit, 1m40s of one trial: 1 of 2 cells." in " ".join(printed.split())
    print_preview(seen, "json")
    plain = json.loads(capsys.readouterr().out)
    assert plain["time_limit_seconds"] == 100
    assert [cell["exceeds_time_limit"] for cell in plain["cells"]] == [True, False]


def test_of_trials_that_fit_no_limit_is_told(tmp_path, reader, capsys):
    limited = study(tmp_path, "time_limit: 12h\ncells: {a: {}}\n")
    print_preview(preview(limited, flops_per_second=1e12, reader=reader))
    assert "time_limit" not in capsys.readouterr().out


def test_data_that_is_not_there_is_noted(tmp_path, reader, capsys):
    seen = preview(study(tmp_path, "cells: {a: {data.path: nowhere}}\n"), flops_per_second=1e9, reader=reader)
    print_preview(seen)
    printed = " ".join(capsys.readouterr().out.split())
    assert "! " in printed
    assert "cell 'a': nowhere: no prepared data here" in printed
    assert "`sweep run` will refuse this; times are without validations." in printed


def test_unequal_parameters_are_marked(tmp_path, reader, capsys):
    sizes = {"vocab_size": 64, "d_model": 64, "attention.head_dim": 256}
    ranks = {"attention.rank_q": 1, "attention.rank_k": 1, "attention.rank_v": 1}
    options = {f"options.model.{key}": value for key, value in (sizes | ranks).items()}
    read = study(tmp_path, "match: parameters\nmatch_to: 115_000\ncells: {a: {}}\n", options)
    seen = preview(read, flops_per_second=1e9, reader=reader)
    assert abs(seen.rows[0].share - 1) > 0.05, "heads are too large for it"
    print_preview(seen)
    printed = capsys.readouterr().out
    assert f"! {seen.rows[0].share:.3f}" in printed
    assert "! more than 5 % away: no fair comparison. Smaller heads" in printed


def test_a_search_shows_its_borders(reader, capsys):
    files = ["configs/sweep/search.yaml", "configs/sweep/search-quick.yaml"]
    print_preview(preview(load_study(files), flops_per_second=1e9, reader=reader))
    printed = capsys.readouterr().out
    assert "mechanism=TPA,rank_q=12,rank_k=4,rank_v=4" in printed
    assert "A search of 16 trials, chosen by tpe." in printed


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "3 s"), (89.6, "90 s"), (150, "2 min"), (3599, "1 h 0 min"), (12000, "3 h 20 min"), (3e5, "3.5 days")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said

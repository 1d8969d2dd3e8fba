import pytest

from lit_t6.sweeps.jobs import Job
from lit_t6.sweeps.report.document import document
from lit_t6.sweeps.report.findings import findings
from lit_t6.sweeps.report.importance import importances
from lit_t6.sweeps.report.tables import cells_csv

from .ledgers import make_study

SEARCH = {
    "mechanism": {"option": "model.attention", "type": "categorical", "choices": ["TPA", "MHA"]},
    "model.attention.rank_q": {"type": "int", "low": 1, "high": 9, "when": {"mechanism": "TPA"}},
}


def record(number, outcome, value, **params):
    options = {"model.attention": params["mechanism"]}
    if "rank_q" in params:
        params["model.attention.rank_q"] = options["model.attention.rank_q"] = params.pop("rank_q")
    facts = {"cache_bytes_per_token": 100 * (number + 1)}
    return Job(f"trial-{number:04}/seed-0", "", 0).key, {
        "outcome": outcome,
        "value": value,
        "params": params,
        "options": options,
        "facts": facts,
        "metrics": {},
    }


def found(tmp_path, *records):
    study = make_study(tmp_path, cells=None, search=SEARCH, seeds=[0], num_trials=len(records))
    return findings(study, dict(records))


def test_what_explains_everything_and_what_nothing(tmp_path):
    values = [(1.0, "TPA", 1), (1.0, "TPA", 2), (1.0, "TPA", 2), (1.0, "TPA", 1), (2.0, "MHA", 0), (2.0, "MHA", 0)]
    records = [
        record(n, "completed", v, mechanism=m, **({"rank_q": rank} if rank else {}))
        for n, (v, m, rank) in enumerate(values)
    ]
    shares = {each.name: (each.trials, each.share) for each in importances(found(tmp_path, *records))}
    assert shares == {"mechanism": (6, pytest.approx(1.0)), "model.attention.rank_q": (4, 0.0)}


def test_a_share_by_hand(tmp_path):
    # Groups (1, 3) and (5, 7) about 4: 20 in all, 4 within, so 16 − 1 · 4 / 2 of 20.
    pairs = [(1.0, "TPA"), (3.0, "TPA"), (5.0, "MHA"), (7.0, "MHA")]
    records = [record(number, "completed", value, mechanism=name) for number, (value, name) in enumerate(pairs)]
    (share,) = importances(found(tmp_path, *records))
    assert share.share == pytest.approx(0.7)


def test_numbers_of_many_values_go_by_quarters(tmp_path):
    records = [record(n, "completed", float(n // 2), mechanism="TPA", rank_q=n + 1) for n in range(8)]
    shares = {each.name: each.share for each in importances(found(tmp_path, *records))}
    assert shares == {"mechanism": 0.0, "model.attention.rank_q": pytest.approx(1.0)}


def test_pruned_trials_stay_in_the_table_and_do_not_count(tmp_path):
    of = found(
        tmp_path,
        record(0, "completed", 1.5, mechanism="TPA", rank_q=3),
        record(1, "pruned", 1.0, mechanism="MHA"),
        record(2, "completed", 1.2, mechanism="MHA"),
        record(3, "diverged", None, mechanism="TPA", rank_q=9),
    )
    assert [cell.name for cell in of.ranked()] == ["trial-0002", "trial-0000"]
    assert [cell.name for cell in of.pareto()] == ["trial-0000", "trial-0002"]
    text = document(of, importances(of), {})
    assert "Best: **trial-0002** (MHA), val/bits_per_byte 1.2000." in text
    assert "* trial-0001/seed-0: pruned, last at 1.0000." in text
    assert "* trial-0003/seed-0: diverged." in text
    assert "the best of many is better than it would be again" in text
    assert cells_csv(of).splitlines()[1].startswith("trial-0000,TPA,3,")
    assert cells_csv(of).splitlines()[2].startswith("trial-0001,MHA,,")


def test_where_more_is_better(tmp_path):
    study = make_study(tmp_path, seeds=[0], objective={"metric": "val/loss", "direction": "maximize"})
    facts = {"cache_bytes_per_token": 1}
    records = {
        f"{name}/seed-0": {"outcome": "completed", "value": value, "facts": facts}
        for name, value in (("a", 1.0), ("b", 2.0))
    }
    of = findings(study, records)
    assert [cell.name for cell in of.ranked()] == ["b", "a"]
    assert [cell.name for cell in of.pareto()] == ["b"]

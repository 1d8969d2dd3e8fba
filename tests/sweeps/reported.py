"""Made-up studies whose results are known, for tests of reports."""

import csv
import io

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from lit_t6.sweeps.records import write_record
from lit_t6.sweeps.report.command import sweep_report
from lit_t6.sweeps.report.findings import findings
from lit_t6.sweeps.report.gathering import gather
from lit_t6.sweeps.same_study import agree
from lit_t6.sweeps.saved_study import save_study
from lit_t6.training.event_records import as_record

from .ledgers import make_ledger, make_study

RANKS = {"base": (6, 2), "low": (2, 2), "high": (12, 2), "wide": (6, 4), "bad": (6, 9)}
CELLS = {name: {"model.attention.rank_q": q, "model.attention.rank_k": k} for name, (q, k) in RANKS.items()}
VALUES = {
    "base": [1.00, 1.10, 1.20, 1.14],
    "low": [1.05, 1.14, 1.27, 1.18],
    "high": [0.99, 1.05, 1.22, 1.09],
    "wide": [0.95, "pruned", 1.16, 1.10],
    "bad": ["diverged", "diverged", "failed", "out_of_memory"],
}
"""Of the objective by seed, or what became of the trial."""
SIZES = {"base": 960, "low": 480, "high": 1300, "wide": 1700, "bad": 3000}


def write_events(folder, value, steps=(9, 19, 29)):
    """Curves that fall to a value."""
    events = [Event(step=0, file_version="brain.Event:2")]
    for number, step in enumerate(steps):
        each = value + 0.5 * (len(steps) - 1 - number)
        tags = {"val/bits_per_byte": each, "val/loss": 2 * each, "train/loss": 2.1 * each}
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in tags.items()])
        events.append(Event(step=step, wall_time=1.0, summary=summary))
    (folder / "events.out.tfevents.1.host.t6").write_bytes(b"".join(map(as_record, events)))


def begun(tmp_path, values=None, cells=None, **settings):
    """A study whose trials have ended, its ledger and its folder; trials of None are left waiting."""
    values = values or VALUES
    settings = {"seeds": [0, 1, 2, 3], "baseline": "base", "record": ["val/loss"], "retries": 0, **settings}
    study = make_study(tmp_path, name="made_up", cells=cells or CELLS, question="Which rank?", **settings)
    folder = tmp_path / "logs" / "sweeps" / "made_up"
    ledger = make_ledger(study, folder)
    ledger.make_due()
    agree(ledger)
    save_study(study, folder)
    while claim := ledger.claim():
        cell, seed = claim.job.cell, claim.job.seed
        value = values[cell][seed]
        if value is None:
            continue
        outcome = value if isinstance(value, str) else "completed"
        number = 1.5 if outcome == "pruned" else None if isinstance(value, str) else value
        finish(ledger, study, folder / claim.job.key, claim, outcome, number, SIZES.get(cell, 1000))
    return study, ledger, folder


def finish(ledger, study, folder, claim, outcome, value, size):
    metrics = {"val/bits_per_byte": value, "val/loss": None if value is None else 2 * value}
    facts = {"num_parameters": 1000 + size, "cache_bytes_per_token": size, "num_heads": 4, "device": "1 × CPU"}
    options = dict(CELLS.get(claim.job.cell, {}))
    ledger.note(claim, options=options, configs=[])
    said = {"reason": "" if outcome == "completed" else f"it {outcome}", "metrics": metrics, "facts": facts}
    said |= {"step": 30, "seconds": 12.5, "times": {"ended": 1.75e9}, "versions": {"python": "3.12", "torch": "2.13.0"}}
    assert ledger.finish(claim, outcome, value, said)
    write_record(folder, ledger.storage.get_trial(claim.trial_id), study)
    write_events(folder, 3.0 if value is None else value)


def found(study, folder):
    """What the study found."""
    gathered = gather(study, folder, None)
    return findings(study, gathered.records, gathered.spent)


def published(folder):
    """A study that was reported on, its ledger, its folder, and that of the report."""
    study, ledger, of = begun(folder)
    output = folder / "report"
    sweep_report([str(of)], output=str(output))
    return study, ledger, of, output


def rows(text):
    """Those of cells.csv, by cell."""
    return {row["cell"]: row for row in csv.DictReader(io.StringIO(text))}


def record(value=1.0, outcome="completed", **said):
    """Of a trial that has ended."""
    return {"outcome": outcome, "value": value if outcome == "completed" else None, **said}


def of_cells(tmp_path, records, **settings):
    """What a study found whose trials these are, by cell and seed."""
    cells = {cell: {"x.y": number} for number, (cell, _) in enumerate(dict.fromkeys(records))}
    study = make_study(tmp_path, **{"cells": cells, "seeds": sorted({seed for _, seed in records}), **settings})
    return findings(study, {f"{cell}/seed-{seed}": each for (cell, seed), each in records.items()})


def of_values(tmp_path, values, sizes=None, **settings):
    """What a study found whose trials end with these values of the objective, by cell and seed; of None one diverged.

    Args:
        tmp_path: of the test.
        values: by cell, one a seed.
        sizes: by cell, its parameters and its cached bytes of a token; 1000 where nothing is said.
        settings: of the study.
    """
    size = {cell: (sizes or {}).get(cell, 1000) for cell in values}
    records = {
        (cell, seed): record(
            value,
            "diverged" if value is None else "completed",
            facts={"num_parameters": size[cell], "cache_bytes_per_token": size[cell]},
            metrics={"val/loss": 2.0},
        )
        for cell, each in values.items()
        for seed, value in enumerate(each)
    }
    return of_cells(tmp_path, records, **settings)

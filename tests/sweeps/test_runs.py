"""Whole studies in real processes."""

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from lit_t6.sweeps.checking import check_study
from lit_t6.sweeps.command import fit_command
from lit_t6.sweeps.study import load_study
from lit_t6.sweeps.worker import REPORTER

from .ledgers import make_ledger, wait_until
from .running import ROOT, Sweep, environment, kill, losses, records, study_file, sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RANKS = {f"{q},{k},{v}": (q, k, v) for q, k, v in ((6, 2, 2), (2, 1, 1), (6, 1, 1), (6, 2, 1), (8, 2, 2), (6, 3, 3))}
CELLS = {
    name: {"model.attention.rank_q": q, "model.attention.rank_k": k, "model.attention.rank_v": v}
    for name, (q, k, v) in RANKS.items()
}
RANK_STUDY = {"cells": CELLS, "baseline": "6,2,2", "match": "parameters", "seeds": [0, 1]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, prepared):
    """A rank study of 6 cells × 2 seeds on two workers: the folder, its file, and what was said."""
    folder = tmp_path_factory.mktemp("undisturbed")
    path = study_file(folder, prepared, "rank", **RANK_STUDY)
    status, said = sweep([path, "--logs", folder, "--workers", 2], folder)
    assert status == 0, said
    return folder / "sweeps" / "rank", path, said


def test_a_rank_study_ends_with_status_0(undisturbed):
    folder, _, said = undisturbed
    found = records(folder)
    assert len(found) == 12
    assert {record["outcome"] for record in found.values()} == {"completed"}
    assert len({record["value"] for record in found.values()}) == 12
    sizes = [record["facts"]["num_parameters"] for record in found.values()]
    assert max(sizes) < 1.05 * min(sizes)
    assert "rank: 12 trials: 12 done, 0 running" in said
    assert "best so far: " in said


def test_between_two_trials_little_time_is_lost(undisturbed, tmp_path):
    """From one trial's end to the next one's first step, beside two bare `cli.py fit` at a time."""
    folder, path, _ = undisturbed
    by_worker = {}
    for record in sorted(records(folder).values(), key=lambda record: record["times"]["started"]):
        by_worker.setdefault(record["worker"]["id"], []).append(record["times"])
    gaps = [b["first_step"] - a["ended"] for times in by_worker.values() for a, b in pairwise(times)]
    study = load_study([path])
    cell, _ = check_study(study)[0]
    bare = [seconds for number in range(2) for seconds in first_steps(study, cell, tmp_path / str(number))]
    over = statistics.median(gaps) - statistics.median(bare)
    print(
        f"overhead {over:.2f} s: {statistics.median(gaps):.2f} s between trials, {statistics.median(bare):.2f} s bare"
    )
    assert over <= 2.0


def first_steps(study, cell, folder):
    """Seconds from the start of `cli.py fit` to its first step, of two at a time."""
    started = []
    for number in range(2):
        mine, theirs = socket.socketpair()
        told = {"descriptor": theirs.fileno(), "metric": "val/loss", "unit": "steps", "every": 0, "prunes": False}
        command = [*fit_command(study, cell, number, folder / str(number)), REPORTER]
        variables = environment(LIT_T6_TRIAL=json.dumps(told))
        options = {"cwd": ROOT, "env": variables, "pass_fds": [theirs.fileno()], "stdout": subprocess.DEVNULL}
        started.append((time.time(), mine, theirs, subprocess.Popen(command, **options)))
    found = []
    for began, mine, theirs, process in started:
        with mine, theirs:
            found.append(json.loads(mine.makefile().readline())["time"] - began)
            assert process.wait(60) == 0
    return found


def test_killed_three_times_it_comes_to_the_same(undisturbed, prepared, tmp_path):
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"random.Random({seed})")
    chance = random.Random(seed)
    path = study_file(tmp_path, prepared, "rank", **RANK_STUDY)
    words = [path, "--logs", tmp_path, "--workers", 2]
    planned = ["coordinator", "worker", chance.choice(["coordinator", "worker"])]
    chance.shuffle(planned)
    print(planned)
    times = [record["times"] for record in records(undisturbed[0]).values()]
    whole = max(each["ended"] for each in times) - min(each["started"] for each in times)
    running = Sweep(words, tmp_path)
    for who in planned:
        wait_until(running.trainings, 60)
        time.sleep(chance.uniform(0, whole / 4))
        if who == "worker":
            wait_until(running.workers)
            kill(chance.choice(running.workers()), signal.SIGKILL)
        else:
            running.kill_coordinator()
            running = Sweep(words, tmp_path)
    with running:
        assert running.status() == 0, running.said()
    assert losses(tmp_path / "sweeps" / "rank") == losses(undisturbed[0])
    trials = make_ledger(load_study([path]), tmp_path / "sweeps" / "rank").trials()
    done = [trial.user_attrs["job"] for trial in trials if trial.state.name == "COMPLETE"]
    assert sorted(done) == sorted(losses(undisturbed[0]))
    assert any(trial.user_attrs.get("outcome") == "lost" for trial in trials)


def test_every_fault_is_reported_and_the_rest_completes(prepared, tmp_path):
    def spoilt(name):
        return {"trainer.callbacks": [{"class_path": f"tests.sweeps.faulty.{name}"}]}

    cells = {
        "fine": {},
        "raises": spoilt("Raises"),
        "nan": {"model.optimizer.lr": 1e30, "trainer.gradient_clip_val": 0},
        "hangs": spoilt("Hangs"),
        "memory": spoilt("EndsMemory"),
    }
    path = study_file(tmp_path, prepared, "faults", cells=cells, time_limit="40s", retries={"failed": 1})
    words = [path, "--logs", tmp_path, "--workers", 2]
    status, said = sweep(words, tmp_path)
    folder = tmp_path / "sweeps" / "faults"
    found = {record["cell"]: record for record in records(folder).values()}
    assert {cell: record["outcome"] for cell, record in found.items()} == {
        "fine": "completed",
        "raises": "failed",
        "nan": "diverged",
        "hangs": "timed_out",
        "memory": "out_of_memory",
    }, said
    assert status == 1
    assert "error: 4 of 5 trials failed: " in said
    assert "the shapes differ" in found["raises"]["reason"]
    assert found["raises"]["attempts"] == 2
    assert "step " in found["nan"]["reason"]
    assert "it is tried again" in said
    with (folder / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code":6,"worker')
    began = time.monotonic()
    status, said = sweep(words, tmp_path)
    assert status == 1, "nothing is left to do, and four have failed"
    assert "its last line was torn; 20 bytes of it are cut off" in said
    assert "begins" not in said
    assert time.monotonic() - began < 60


def test_a_run_that_diverged_at_its_end_is_trained_anew(prepared, tmp_path):
    """Its folder says that it is finished, and its last checkpoint is of the last step."""
    cells = {"a": {"trainer.callbacks": [{"class_path": "tests.sweeps.faulty.PoisonsOnce"}]}}
    path = study_file(tmp_path, prepared, "poisoned", cells=cells, retries={"diverged": 0})
    words, folder = [path, "--logs", tmp_path], tmp_path / "sweeps" / "poisoned"
    status, said = sweep(words, tmp_path)
    assert status == 1, said
    assert records(folder)["a/seed-0"]["outcome"] == "diverged"
    assert (folder / "a/seed-0/finished").exists()
    status, said = sweep([*words, "--retry_failed", "true"], tmp_path)
    assert status == 0, said
    record = records(folder)["a/seed-0"]
    assert (record["outcome"], record["step"]) == ("completed", 12)
    assert "first_step" in record["times"], "it was trained"
    assert records(folder)["a/seed-0.attempt-1"]["outcome"] == "diverged"
    assert list((folder / "a/seed-0.attempt-1").glob("events*"))


def test_seeds_that_are_not_asked_for_are_kept(prepared, tmp_path):
    path = study_file(tmp_path, prepared, "seeds", cells={"a": {}}, seeds=[0, 1])
    status, said = sweep([path, "--logs", tmp_path, "--seeds", "1"], tmp_path)
    assert status == 0, said
    folder = tmp_path / "sweeps" / "seeds"
    status, said = sweep([folder, "--seeds", "0"], tmp_path)
    assert status == 0, said
    assert "Run now: seed 0. Kept, and not run now: 1; `sweep run" in said
    assert {*records(folder)} == {"a/seed-0", "a/seed-1"}
    assert said.count("begins") == 1
    status, said = sweep([folder], tmp_path)
    assert status == 0, said
    assert "2 trials: 2 done" in said
    assert "begins" not in said


def test_a_conditional_search_with_pruning(prepared, tmp_path):
    ranks = {"type": "int", "low": 1, "high": 4}
    search = {
        "mechanism": {"option": "model.attention", "type": "categorical", "choices": ["TPA", "MHA", "MQA"]},
        "model.attention.rank_q": {**ranks, "when": {"mechanism": "TPA"}},
        "model.attention.rank_k": {**ranks, "when": {"mechanism": "TPA"}},
        "model.optimizer.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    }
    path = study_file(
        tmp_path,
        prepared,
        "search",
        {"model.optimizer.min_lr": 0.0},
        search=search,
        num_trials=20,
        sampler={"name": "tpe", "n_startup_trials": 6, "seed": 1},
        pruner={"name": "median", "n_startup_trials": 3, "every_n_steps": 4},
    )
    status, said = sweep([path, "--logs", tmp_path, "--workers", 2], tmp_path)
    assert status == 0, said
    found = records(tmp_path / "sweeps" / "search")
    pruned = [record for record in found.values() if record["outcome"] == "pruned"]
    assert len(found) == 20
    assert {record["outcome"] for record in found.values()} == {"completed", "pruned"}
    for record in found.values():
        assert ("model.attention.rank_q" in record["params"]) == (record["params"]["mechanism"] == "TPA")
        assert ("model.attention.rank_q" in record["options"]) == (record["params"]["mechanism"] == "TPA")
    print({record["job"]: record["step"] for record in pruned})
    assert all(record["step"] in (4, 8) and record["reason"] == f"pruned at step {record['step']}" for record in pruned)
    assert f"{20 - len(pruned)} done, 0 running, {len(pruned)} pruned" in said


def test_several_devices_a_trial_agree_on_pruning(prepared, tmp_path):
    path = study_file(
        tmp_path,
        prepared,
        "ddp",
        cells={"a": {}},
        gpus_per_trial=2,
        pruner={"name": "threshold", "upper": 0.01, "every_n_steps": 4},
    )
    status, said = sweep([path, "--logs", tmp_path], tmp_path)
    assert status == 0, said
    (record,) = records(tmp_path / "sweeps" / "ddp").values()
    assert (record["outcome"], record["step"]) == ("pruned", 4)


def test_stopped_it_saves_and_goes_on_and_packed_it_goes_on_elsewhere(prepared, tmp_path):
    options = {"trainer.max_steps": 400, "trainer.val_check_interval": 200, "resume.every_n_steps": 0}
    path = study_file(tmp_path, prepared, "long", options, cells={"a": {}})
    here, there, archive = tmp_path / "here", tmp_path / "there", tmp_path / "long.tar.gz"
    words, folder = [path, "--logs", here], here / "sweeps" / "long" / "a" / "seed-0"
    with Sweep(words, tmp_path) as running:
        wait_until(lambda: list(folder.glob("events*")) or running.process.poll() is not None, 60)
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        assert running.status(60) == 75, running.said()
        assert "Stopped; the same command goes on." in running.said()
    assert "; the same command goes on." in (folder / "output.log").read_text()
    status, said = sweep(words, tmp_path)
    assert status == 0, said
    assert "Going on with" in (folder / "output.log").read_text()
    assert losses(here)["sweeps/long/a/seed-0"][:2] == ("completed", 400)
    command = [sys.executable, "cli.py", "sweep", "pack", path, "--logs", here, "--output", archive]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    path.unlink()
    status, said = sweep(["--from", archive, "--logs", there, "--seeds", "0,1"], tmp_path)
    assert status == 0, said
    assert said.count("begins") == 1
    assert "a/seed-1: begins" in said
    assert losses(here).items() <= losses(there).items()
    assert list((there / "sweeps" / "long" / "a" / "seed-0").glob("events*"))

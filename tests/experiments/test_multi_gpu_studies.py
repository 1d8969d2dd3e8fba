import copy
import json
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState

from experiments.multi_gpu import attempts, studies, studies_result
from experiments.multi_gpu.attempts import Attempts, place_of
from experiments.multi_gpu.utilisation import summarised
from lit_t6.sweep_commands import sweep
from lit_t6.sweeps import commands

from ..sweeps.running import study_file


def attempt(job, place, start, value=None, killed=False, from_step=0, steps=60):
    outcome = "lost" if killed else "completed"
    said = {"job": job, "place": place, "outcome": outcome, "start": start, "end": start + 9.0, "value": value}
    return said | {"killed": killed, "from_step": from_step, "steps": steps}


def part(*found, places=2):
    return {"saved_every": 10, "places": places, "per_trial": 1, "seconds": 40.0, "attempts": list(found), "use": {}}


RANK = part(
    attempt("a/seed-0", "GPU 0", 0, 2.50),
    attempt("b/seed-0", "GPU 1", 0, 2.60),
    attempt("a/seed-1", "GPU 0", 9, 2.52),
    attempt("b/seed-1", "GPU 1", 9, 2.58),
)
HEADS = part(
    attempt("a/seed-0", "GPU 0", 0, killed=True, steps=14),
    attempt("b/seed-0", "GPU 1", 0, 2.60),
    attempt("a/seed-0", "GPU 1", 20, 2.50, from_step=10),
)


def result(**parts):
    return {"places": 2, "facts": {"same": {"device": "X", "torch": "2.11"}}, "parts": parts}


def test_the_spread_of_seeds_is_over_all_cells():
    assert studies_result.spread(RANK) == pytest.approx(0.0002**0.5)


def test_what_is_right_has_no_problems():
    assert studies_result.problems(result(**{"rank-all": RANK, "heads-all": HEADS, "rank-one": RANK})) == []


def test_a_trial_that_is_missing_or_done_twice_is_a_problem():
    twice = part(*RANK["attempts"], attempt("a/seed-0", "GPU 1", 20, 2.5))
    assert studies_result.problems(result(x=twice)) == ["x: 4 trials, 5 completed; expected each of them once."]
    lost = part(*HEADS["attempts"][:2])
    said = studies_result.problems(result(x=lost))
    assert said[0] == "x: 2 trials, 1 completed; expected each of them once."
    assert said[1] == "x: a/seed-0 was killed, and not completed after that."


@pytest.mark.parametrize("from_step", [None, 0, 3])
def test_what_goes_on_from_far_before_its_end_is_a_problem(from_step):
    early = copy.deepcopy(HEADS)
    early["attempts"][2]["from_step"] = from_step
    said = studies_result.problems(result(x=early))
    assert f"a/seed-0 was killed at step 14 and resumed after step {from_step}; expected 4 or later" in said[0]


def test_what_is_resumed_where_it_was_killed_shows_nothing():
    stays = copy.deepcopy(HEADS)
    stays["attempts"][2]["place"] = "GPU 0"
    said = studies_result.problems(result(x=stays))
    assert said == ["x: what was killed was never resumed anywhere else: a/seed-0 on GPU 0."]


def test_a_study_in_which_nobody_was_killed_shows_nothing():
    said = studies_result.problems(result(x=part(*RANK["attempts"]) | {"kills": True}))
    assert said == ["x: no worker was killed, as trials are too short; more --trainer.max_steps."]


def test_a_part_of_which_nothing_is_known_is_named(tmp_path):
    found = result(**{"rank-all": RANK, "heads-all": part() | {"kills": True}, "rank-one": part()})
    missing = "nothing is known of its trials; expected an attempt at each."
    assert studies_result.problems(found) == [f"heads-all: {missing}", f"rank-one: {missing}"]
    said = studies_result.table(found)
    assert "| heads-all | 2 | 1 | 0 | 0 | 0.67 |  |  |  |" in said
    assert "| rank-one | 2 | 1 | 0 | 0 | 0.67 |  |  |  |" in said
    assert [len(axes.patches) for axes in studies_result.timeline(found, tmp_path / "x.png").axes] == [4, 0, 0]


def test_a_trial_that_was_done_before_its_worker_was_killed_was_not_resumed():
    late = copy.deepcopy(HEADS)
    late["attempts"][2] |= {"from_step": None, "start": 20.0, "end": 20.1}
    said = studies_result.problems(result(x=late))
    assert said == ["x: what was killed was never resumed anywhere else: a/seed-0 on GPU 0."]
    assert "killed at step 14; then found done on GPU 1." in studies_result.table(result(x=late))


def test_results_further_apart_than_seeds_are_a_problem():
    other = copy.deepcopy(RANK)
    other["attempts"][0]["value"] += 0.2
    said = studies_result.problems(result(**{"rank-all": RANK, "rank-one": other}))
    assert said == ["rank-one: a trial lies 0.2000 from that of rank-all; seeds spread by 0.0141."]


def test_the_table_tells_of_each_part(tmp_path):
    found = result(**{"rank-all": RANK, "heads-all": HEADS, "rank-one": part(*RANK["attempts"], places=1)})
    found["parts"]["rank-all"]["use"] = {"0": {"percent": 61.4, "peak_gib": 1.0}, "1": {"percent": 7.0, "peak_gib": 1}}
    said = studies_result.table(found)
    assert "| rank-all | 2 | 1 | 4 | 4 | 0.67 | 9.0 | 0: 61 %, 1: 7 % |  |" in said
    assert "| rank-one | 1 | 1 | 4 | 4 | 0.67 | 9.0 |  | 0.0000, at most 0.0000 |" in said
    tale = "on GPU 0, its worker killed at step 14; then from step 10 on GPU 1, completed at step 60."
    assert f"heads-all: a/seed-0: {tale}" in said
    figure = studies_result.timeline(found, tmp_path / "x.png")
    assert [len(axes.patches) for axes in figure.axes] == [4, 3, 4]


def test_only_the_gpus_that_are_used_count():
    text = "0, GPU-ab, 50, 1024\n1, GPU-cd, 10, 2048\n0, GPU-ab, 70, 3072\n1, GPU-cd, [N/A], 5\n1, GPU-cd, 9\n1"
    assert summarised(text)["0"] == {"percent": 60.0, "peak_gib": 3.0, "samples": 2}
    assert summarised(text)["1"]["samples"] == 1
    assert summarised(text, "1").keys() == summarised(text, " 1, 7").keys() == summarised(text, "GPU-c").keys() == {"1"}


def test_places_are_gpus_or_workers():
    assert [place_of({"gpus": "0", "number": 3}), place_of({"gpus": "0,1"}), place_of({"number": 3})] == [
        *("GPU 0", "GPUs 0,1", "worker 3")
    ]


def trial(number, job, state, gpus="0", beat=None):
    said = {"job": job, "worker": {"gpus": gpus, "pid": 100 + number}} | ({"beat": beat} if beat else {})
    times = {"datetime_start": None, "datetime_complete": None}
    return SimpleNamespace(_trial_id=number, user_attrs=said, state=state, values=None, value=None, **times)


def test_a_worker_on_its_way_is_killed_and_another_when_one_is_idle(monkeypatch, tmp_path):
    killed = []
    monkeypatch.setattr(attempts.os, "kill", lambda pid, number: killed.append(pid))
    (tmp_path / "journal.log").touch()
    watched, trials = Attempts(None, tmp_path, kills=2), []
    watched._ledger = SimpleNamespace(trials=lambda: trials)
    running, waiting, failed = TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL

    def look(*found):
        trials[:] = found
        watched.look()
        return killed

    assert look(trial(0, "a", running, beat=[1, 1, 60, 0.0]), trial(1, "b", running, "1")) == []
    assert look(trial(0, "a", running, beat=[2, 12, 60, 3.0]), trial(1, "b", running, "1")) == [100]
    lost, other = trial(0, "a", failed), trial(1, "b", running, "1", [3, 40, 60, 9.0])
    assert look(lost, other, trial(2, "a", waiting)) == [100]
    assert look(lost, other, trial(2, "a", running, beat=[1, 11, 60, 0.0])) == [100]  # nobody is idle
    done, more = trial(1, "b", TrialState.COMPLETE, "1"), trial(3, "c", waiting)
    assert look(lost, done, trial(2, "a", running, beat=[2, 22, 60, 3.0]), more) == [100]  # nor here
    assert look(lost, done, trial(2, "a", running, beat=[2, 50, 60, 9.0])) == [100]  # may be done before it is killed
    assert look(lost, done, trial(5, "d", running, beat=[1, 1, 60, 0.0])) == [100]  # has lost no worker, nor done much
    assert look(lost, done, trial(6, "a", running, "1")) == [100]  # it has moved, though it has done no step yet
    assert look(lost, done, trial(2, "a", running, beat=[2, 12, 60, 3.0])) == [100, 102]
    found_done = trial(4, "a", TrialState.COMPLETE, "1")
    found_done.user_attrs["times"] = {"started": 50.0, "ended": 50.01}
    assert not watched._has_moved([lost, done, found_done])
    again = trial(2, "a", failed)
    assert look(lost, done, again, trial(3, "a", running, "1", [1, 21, 60, 0.0])) == [100, 102]
    assert look(lost, done, again, trial(3, "a", running, "1", [1, 55, 60, 0.0])) == [100, 102]  # it has moved


def test_options_that_are_none_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        studies.main([f"--output={tmp_path}", "--max_steps=3"])
    assert "--max_steps=3: expected an option of this program, or one of `fit`" in capsys.readouterr().err
    assert studies.main([f"--output={tmp_path}", "--workers=1"]) == 1
    assert "expected two or more" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        studies.main([f"--output={tmp_path}", "--parts", "rank-some"])
    assert "'rank-some' (choose from" in capsys.readouterr().err


def test_other_devices_do_not_go_on(tmp_path, capsys):
    (tmp_path / "studies.json").write_text(json.dumps({"parts": {}, "facts": {"same": {"device": "another"}}}))
    assert studies.main([f"--output={tmp_path}"]) == 1
    assert "cannot stand in one table. Choose another --output." in capsys.readouterr().err


def watcher(found):
    return SimpleNamespace(all=lambda: found, look=lambda: None, open=lambda: None, began=time.time())


@pytest.mark.parametrize("left", [[], [attempt("a/seed-0", "GPU 0", -90)]])
def test_a_part_that_an_earlier_call_began_has_no_time(tmp_path, monkeypatch, left):
    said = [SimpleNamespace(to_dict=lambda each=each: each) for each in left]
    monkeypatch.setattr(studies, "Attempts", lambda *_: watcher(said))
    monkeypatch.setattr(studies.Run, "words", lambda *_: [sys.executable, "-c", ""])
    options = studies.read_options([f"--output={tmp_path}", f"--logs={tmp_path}"])
    found = studies.Run(studies.parts(2)[0], options, []).run()
    assert (found["status"], found["interrupted"]) == (0, bool(left))


@pytest.mark.parametrize("name", ["rank-all", "rank-pairs"])
def test_the_study_that_is_watched_is_the_one_that_runs(tmp_path, monkeypatch, name):
    watched, ran = [], []
    monkeypatch.setattr(studies, "Attempts", lambda study, *_: watched.append(study) or watcher([]))
    typed = ["--trainer.max_steps=600", "--model.optimizer.lr=1e-3", "--trainer.accelerator=null"]
    options = studies.read_options([f"--output={tmp_path}", f"--logs={tmp_path}", f"--data={tmp_path}", *typed])
    run = studies.Run(next(part for part in studies.parts(2) if part.name == name), options, [])
    monkeypatch.setattr(commands, "_preview", lambda study, *_: ran.append(study))
    sweep(run.words("run", "--dry_run=true")[3:])
    monkeypatch.setattr(studies.Run, "words", lambda *_: [sys.executable, "-c", ""])
    run.run()
    assert ran[0].options["trainer.max_steps"] == 600
    assert {study.digest() for study in watched} == {ran[0].digest()}
    assert watched[0] == replace(ran[0], files=watched[0].files)


def test_a_study_that_could_not_be_watched_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(studies.Run, "words", lambda *_: [sys.executable, "-c", ""])
    words = [f"--output={tmp_path}", f"--logs={tmp_path}", "--parts", "heads-all"]
    assert studies.main(words) == 1
    assert "error: heads-all: was trained, but could not be watched: " in capsys.readouterr().err
    assert not (tmp_path / "studies.json").exists()


def test_the_table_tells_no_time_of_a_part_that_was_interrupted(tmp_path):
    late = part(*RANK["attempts"], attempt("c/seed-0", "GPU 0", -90, 2.5)) | {"interrupted": True}
    found = result(**{"rank-all": late})
    assert "| rank-all | 2 | 1 | 5 | 5 | interrupted | 9.0 |" in studies_result.table(found)
    assert studies_result.timeline(found, tmp_path / "x.png").axes[0].get_xlim()[0] == -90


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_studies_run_on_two_workers_one_and_in_pairs(prepared, tmp_path, capfd, monkeypatch):
    """All of it, small: two cells with two seeds, workers killed, and two processes a trial."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {
        "data.global_batch_size": 4,
        "trainer.accelerator": "cpu",
        "resume.every_n_steps": 20,
        "trainer.max_steps": 200,
        "trainer.val_check_interval": 100,
    }
    cells = {name: {"model.attention.rank_q": rank} for name, rank in (("two", 2), ("four", 4))}
    settings = {"cells": cells, "baseline": "two", "match": "none"}
    study_file(tmp_path, prepared, "rank", options, seeds=[0, 1], **settings)
    # Long enough to be killed again and again, until another worker has taken it over.
    study_file(tmp_path, prepared, "heads", options | {"trainer.max_steps": 1200}, seeds=[0], **settings)
    words = [f"--output={tmp_path / 'out'}", f"--logs={tmp_path / 'logs'}", f"--overlay={tmp_path}/{{}}.yaml"]
    words += [f"--data={prepared}", "--pair_batch=2", "--trainer.log_every_n_steps=40"]
    assert studies.main(words) == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    assert "on worker 0, its worker killed at step " in said or "on worker 1, its worker killed at step " in said
    found = json.loads((tmp_path / "out" / "studies.json").read_text())["parts"]
    assert {name: len(studies_result.values(part)) for name, part in found.items()} == {
        "rank-all": 2,
        "heads-all": 2,
        "rank-pairs": 2,
        "rank-one": 2,
    }
    assert studies_result.apart(found["rank-all"], found["rank-one"]) == [0.0] * 4
    assert max(map(abs, studies_result.apart(found["rank-all"], found["rank-pairs"]))) < 1e-4
    for name in ("rank-all", "heads-all", "rank-pairs", "rank-one"):
        assert (tmp_path / "out" / name / "report.md").exists()
        assert list((tmp_path / "out" / name / "tensorboard").rglob("events.out.tfevents.*"))
    assert studies.main(words) == 0  # nothing is run again
    assert "rank-one: is in " in capfd.readouterr().err

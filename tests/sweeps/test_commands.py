import json
import os
import subprocess
import sys

import pytest

from lit_t6.cli import main, run
from lit_t6.sweeps.commands import _begin, _beginning
from lit_t6.sweeps.presence import Presence
from lit_t6.sweeps.same_study import agree
from lit_t6.sweeps.saved_study import save_study
from lit_t6.sweeps.screen import Screen
from lit_t6.sweeps.worker import Plan

from .ledgers import make_ledger, make_study, plain_cells, write_study


def refused(capsys, *words):
    assert main(["sweep", *map(str, words)]) == 1
    return capsys.readouterr().err


@pytest.fixture
def begun(tmp_path):
    """A study of which one trial is done, and its file."""
    study = make_study(tmp_path, options={"trainer.max_steps": 8})
    folder = tmp_path / "logs" / "sweeps" / "study"
    ledger = make_ledger(study, folder)
    ledger.make_due()
    ledger.finish(ledger.claim(), "completed", 1.5, {"step": 3, "seconds": 2.0})
    save_study(study, folder)
    return tmp_path / "study.yaml"


@pytest.mark.parametrize("name", ["run", "status", "report", "pack"])
def test_help_teaches(name, capsys):
    with pytest.raises(SystemExit) as end:
        run(["sweep", name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"python cli.py sweep {name} " in said
    assert "--storage" in said
    assert "--seeds VALUE with each of which each cell is trained, such as 0,1,2." in " ".join(said.split())
    assert "--options.model.d_model 256" in said
    assert ("--from ARCHIVE" in said) == (name in ("run", "report"))


def test_the_group_tells_what_there_is(capsys):
    with pytest.raises(SystemExit):
        run(["sweep", "--help"])
    assert "sweep run --from" in capsys.readouterr().out
    assert "did you mean status? There are run, status, report, pack." in refused(capsys, "statsu")
    assert "There are run, status, report, pack." in refused(capsys)


def test_errors_are_one_line(capsys, tmp_path):
    assert "needs the file of a study" in refused(capsys, "run")
    assert "no such study file" in refused(capsys, "run", tmp_path / "none.yaml")
    path = write_study(tmp_path, seed=[1])
    assert "no setting 'seed'; did you mean seeds?" in refused(capsys, "run", path)
    assert "there is no option --worker; did you mean --workers?" in refused(capsys, "run", path, "--worker", "2")
    assert "there is no option --num_trails; did you mean --num_trials?" in refused(
        capsys, "run", path, "--num_trails=2"
    )
    assert "there is no option --trainer.max_steps; did you mean --options.trainer.max_steps?" in refused(
        capsys, "run", path, "--trainer.max_steps", "2"
    )
    assert "--heartbeat must be above 0" in refused(capsys, "run", path, "--heartbeat", "0")
    assert "leave" in refused(capsys, "run", path, "--from", "x.tar.gz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0", "1", "2"], "--seeds 0 1 2: is one word, with commas: --seeds 0,1,2."),
        (["--seeds", "0,", "1"], "--seeds 0, 1: is one word, with commas: --seeds 0,1."),
        (["--seeds", "a,b"], "--seeds: expected whole numbers of at least 0, such as [0, 1, 2], got ['a', 'b']."),
        (["--seeds", "1,1"], "--seeds: a seed stands there twice: [1, 1]."),
        (["--match", "heads"], "--match: 'heads' is not one of its values. There are none, parameters."),
        (["--baseline", "d"], "--baseline: 'd' is not a cell. There are a, b, c."),
        (["--configs", "none.yaml"], "--configs: none.yaml: no such configuration file."),
        (["--workers", "two"], "--workers: expected a whole number, got 'two'."),
        (["--workers-per-gpu", "1.5"], "--workers_per_gpu: expected a whole number, got '1.5'."),
        (["--heartbeat", "often"], "--heartbeat: expected a number, got 'often'."),
        (["--dry_run"], "--dry_run needs a value: say `--dry_run true`."),
        (["--dry-run", "--workers", "2"], "--dry_run needs a value: say `--dry_run true`."),
        (
            ["--retry_failed", "again"],
            "--retry_failed: expected true or false, got 'again'; say `--retry_failed true`.",
        ),
        (["--workers"], "--workers needs a value."),
    ],
)
def test_what_is_wrong_is_said_of_the_option_that_was_typed(capsys, tmp_path, words, message):
    assert refused(capsys, "run", write_study(tmp_path), *words) == f"error: {message}\n"


def test_options_of_a_dry_run_are_of_no_use_without_it(capsys, tmp_path):
    path = write_study(tmp_path)
    said = refused(capsys, "run", path, "--format", "json", "--rate", "1e9")
    assert said.startswith("error: --rate and --format json: only of use with --dry_run true")
    assert "--rate: only of use" in refused(capsys, "run", path, "--rate", "1e9", "--logs", tmp_path)
    assert not (tmp_path / "sweeps").exists()


def test_status_of_what_was_not_begun(capsys, tmp_path):
    path = write_study(tmp_path)
    assert "has not been begun" in refused(capsys, "status", path, "--logs", tmp_path)
    assert not (tmp_path / "sweeps").exists()


def test_status_of_what_is_just_being_begun(capsys, tmp_path):
    """By its file, and by its folder, which is there before the study is kept in it."""
    study, logs = make_study(tmp_path), tmp_path / "logs"
    folder = logs / "sweeps" / "study"
    with _beginning(study, folder) as presence:
        for words in ([tmp_path / "study.yaml", "--logs", logs], [folder]):
            said = refused(capsys, "status", *words)
            assert said.startswith(f"error: {folder}: the study is being begun: ")
            assert "has not been begun" not in said
        plan = Plan(study, tuple(plain_cells(study)), None, folder, 5.0)
        _begin(plan, Screen(), presence, False, False)
        run(["sweep", "status", str(folder)])
        assert "6 waiting" in capsys.readouterr().out
    presence.close()


def test_where_others_are_at_work_with_another_storage_status_asks_for_it(capsys, tmp_path):
    study = make_study(tmp_path)
    folder = tmp_path / "logs" / "sweeps" / "study"
    save_study(study, folder)
    presence = Presence(folder / "workers")
    assert "Where it was begun with --storage" in refused(capsys, "status", folder)
    presence.close()


@pytest.mark.parametrize("name", ["status", "pack"])
def test_another_study_than_was_begun_is_refused_as_by_run(begun, capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    words = (begun, "--logs", tmp_path / "logs", "--options.trainer.max_steps", "9")
    said = refused(capsys, name, *words)
    assert said == refused(capsys, "run", *words)
    assert "the study that was begun here is another one: options.trainer.max_steps" in said
    assert not list(tmp_path.glob("*.tar.gz"))


@pytest.mark.parametrize("name", ["status", "pack"])
def test_another_study_than_the_storage_holds_is_refused(begun, capsys, tmp_path, monkeypatch, name):
    """A machine that has the storage and not the folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "logs" / "sweeps" / "study"
    agree(make_ledger(make_study(tmp_path), folder))
    words = (begun, "--storage", folder / "journal.log", "--logs", tmp_path / "elsewhere")
    assert "the storage holds another study called 'study': options.trainer.max_steps was null, is 9." in refused(
        capsys, name, *words, "--options.trainer.max_steps", "9"
    )


def test_status_by_file_and_by_folder(begun, capsys, tmp_path):
    run(["sweep", "status", str(begun), "--logs", str(tmp_path / "logs")])
    by_file = capsys.readouterr().out
    assert "study: 6 trials: 1 done, 0 running, 0 pruned, 0 failed, 5 waiting" in by_file
    run(["sweep", "status", str(tmp_path / "logs" / "sweeps" / "study")])
    assert capsys.readouterr().out == by_file


def test_what_a_dead_worker_ran_is_waiting(tmp_path, capsys):
    study = make_study(tmp_path)
    folder = tmp_path / "logs" / "sweeps" / "study"
    ledger = make_ledger(study, folder)
    ledger.make_due()
    ledger.claim()
    save_study(study, folder)
    run(["sweep", "status", str(folder)])
    assert "1 running, 0 pruned, 0 failed, 5 waiting" in capsys.readouterr().out
    os.close(ledger.presence.descriptor)  # as the kernel does when it is killed
    run(["sweep", "status", str(folder)])
    assert "0 running, 0 pruned, 0 failed, 6 waiting" in capsys.readouterr().out


def test_status_for_programs(begun, capsys, tmp_path):
    run(["sweep", "status", str(begun), "--logs", str(tmp_path / "logs"), "--format", "json"])
    assert json.loads(capsys.readouterr().out)["best"]["value"] == 1.5


def test_settings_are_typed_as_in_the_file(begun, capsys, tmp_path):
    run(["sweep", "status", str(begun), "--logs", str(tmp_path / "logs"), "--seeds", "0,1,2"])
    assert "9 trials" in capsys.readouterr().out


def test_pack_and_what_it_refuses(begun, capsys, tmp_path):
    words = ["sweep", "pack", str(begun), "--logs", str(tmp_path / "logs"), "--output", str(tmp_path / "x.tar.gz")]
    run(words)
    assert "x.tar.gz: 1 of 6 trials" in capsys.readouterr().out
    assert "exists already" in refused(capsys, *words[1:])
    run([*words, "--overwrite", "true"])
    run([*words[:-1], str(tmp_path / "made" / "x.tar.gz")])
    said = refused(capsys, *words[1:-1], tmp_path / "not" / "there" / "x.tar.gz")
    assert f"there is no folder {tmp_path}/not to make there in" in said
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("name", ["run", "status", "pack", "report"])
def test_what_is_neither_a_file_nor_a_folder_of_a_study(begun, capsys, tmp_path, name):
    logs = tmp_path / "logs"
    there, neither = logs / "sweeps" / "study", "is neither the file of a study nor the folder of one that was begun"
    for typed in (logs / "sweeps" / "studdy", "studdy"):
        said = refused(capsys, name, typed, "--logs", logs)
        assert said == f"error: {typed}: {neither}; did you mean {there}? There is {there}.\n"
    said = refused(capsys, name, logs / "sweeps", "--logs", logs)
    assert said == f"error: {logs / 'sweeps'}: {neither}. There is {there}.\n"
    said = refused(capsys, name, tmp_path / "none", "--logs", tmp_path)
    assert said == f"error: {tmp_path / 'none'}: {neither}. There is none in {tmp_path / 'sweeps'} either.\n"
    assert "no such study file" in refused(capsys, name, begun, tmp_path / "none.yaml", "--logs", logs)


def test_another_study_in_the_folder_is_refused(begun, capsys, tmp_path):
    words = ("run", begun, "--logs", tmp_path / "logs", "--options.trainer.max_steps", "9")
    said = refused(capsys, *words)
    assert "the study that was begun here is another one: options.trainer.max_steps" in said
    assert "--name" in said


def test_status_and_help_load_no_pytorch(begun, tmp_path):
    program = (
        "import sys; from lit_t6.cli import main; status = main(sys.argv[1:]);"
        "assert not {'torch', 'lightning'} & {*sys.modules}; sys.exit(status)"
    )
    words = ["sweep", "status", str(begun), "--logs", str(tmp_path / "logs")]
    subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)


def test_workers_and_the_coordinator_load_no_pytorch():
    program = (
        "import sys, lit_t6.sweeps.worker, lit_t6.sweeps.commands; assert not {'torch', 'lightning'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

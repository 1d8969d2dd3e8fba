"""`bench train` end to end, on a CPU with tiny models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import lit_t6.bench.train as train
from lit_t6.bench.training.case import OURS, UPSTREAM
from lit_t6.cli import main, run

STAND_IN = Path(__file__).with_name("training") / "stand_in.py"
TIMED = {"status": "timed", "step_ms": 2.0, "tokens_per_sec": 500.0, "peak_gib": 1.0, "first_step_seconds": 3.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files of two models, and what looks like a clone of the authors' repository."""
    folder = tmp_path_factory.mktemp("models")
    attentions = {
        "tpa": {"class_path": "TPA", "init_args": {"num_heads": 3, "head_dim": 16}},
        "mha": {"class_path": "MHA", "init_args": {"num_heads": 3, "head_dim": 16}},
    }
    for name, attention in attentions.items():
        model = {"vocab_size": 50, "d_model": 32, "num_layers": 2, "multiple_of": 1, "attention": attention}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"model": model}))
    (folder / "clone" / "model").mkdir(parents=True)
    shutil.copy(STAND_IN, folder / "clone" / "model" / "T6.py")
    return folder


def words(models, output, *names, **options):
    given = {"device": "cpu", "compile": "false", "batch": 2, "seq_len": 16, "steps": 2, "warmup": 1} | options
    files = [str(models / f"{name}.yaml") for name in names or ("tpa",)]
    return ["bench", "train", f"--output={output}", "--config", *files, *(f"--{k}={v}" for k, v in given.items())]


def read(folder):
    return json.loads((folder / "train.json").read_text())


@pytest.fixture
def quick(monkeypatch):
    """No process is started; what one would find is what the test says, by the name of the case and whose it is."""
    found = {}

    def run_case(case, seconds):
        asked.append(case)
        result = found.get((case.name, case.code), TIMED)
        if isinstance(result, BaseException):
            raise result
        return dict(result)

    asked = []
    monkeypatch.setattr(train, "run_case", run_case)
    return found, asked


def test_ours_and_the_authors_code_are_measured_in_processes(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    results = run([*words(models, tmp_path), f"--upstream={models / 'clone'}"])
    ours, theirs = results.entries
    assert (ours.code, ours.status, theirs.code, theirs.status) == (OURS, "timed", UPSTREAM, "timed"), theirs
    assert ours.attention == theirs.attention == "TPA (6, 2, 2)"
    assert ours.gradient_error < 0.05
    assert theirs.gradient_error is None
    assert theirs.loss == pytest.approx(theirs.exact_loss, rel=1e-2)
    assert results.over_upstream(ours) == pytest.approx(theirs.step_ms / ours.step_ms)
    whole = read(tmp_path)
    assert [e["step_ms"] for e in whole["entries"]] == [ours.step_ms, theirs.step_ms]
    assert whole["settings"]["precision"] == "bf16-mixed"
    assert whole["facts"]["versions"]["torch"] == torch.__version__
    assert len(whole["facts"]["upstream_sha256"]["T6.py"]) == 64
    assert f"{ours.tokens_per_sec:,.0f}" in (tmp_path / "train.md").read_text()
    assert (tmp_path / "train.png").read_bytes()[:4] == b"\x89PNG"
    shown = capsys.readouterr().out
    assert "tpa, ours, 2 × 16 (1 of 2)" in shown
    assert "tpa, the authors', 2 × 16 (2 of 2)" in shown


def test_a_case_that_takes_too_long_is_killed(models, tmp_path, capsys):
    assert main(words(models, tmp_path, case_seconds=0.2)) == 1
    (entry,) = read(tmp_path)["entries"]
    assert (entry["status"], entry["why"]) == ("failed", "it took longer than 0.2 s and was killed")
    assert "1 cases are wrong and have no speed, such as tpa, ours, 2 × 16: it took" in capsys.readouterr().err


def test_a_process_that_ends_early_is_an_entry_with_its_log(models, tmp_path, monkeypatch):
    monkeypatch.setattr(train.run_case.__globals__["sys"], "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho what happened; kill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    assert main(words(models, tmp_path)) == 1
    (entry,) = read(tmp_path)["entries"]
    assert (entry["status"], entry["why"], entry["log"]) == (
        "failed",
        "the process died of SIGKILL",
        "what happened\n",
    )


def test_cases_in_their_order(models, tmp_path, quick):
    asked = quick[1]
    command = words(models, tmp_path, "tpa", "mha", batch="4,1", seq_len="[8, 32]")
    results = run([*command, f"--upstream={models / 'clone'}"])
    shapes = [(case.name, case.code, case.batch, case.seq_len) for case in asked]
    first = [("tpa", OURS), ("tpa", UPSTREAM), ("mha", OURS)]
    assert shapes == [(*one, *shape) for shape in ((4, 8), (1, 32)) for one in first]
    assert {case.model_config.max_seq_len for case in asked if case.seq_len == 32} == {32}
    assert [case.upstream["arch"] for case in asked[:3] if case.upstream] == ["T6"]
    assert results.left_out == ["mha"]  # the clone has no file of it
    assert results.groups == [(32, 2, 50, 1, 32), (32, 2, 50, 4, 8)]


def test_all_of_ours_may_recompute(models, tmp_path, quick):
    run(words(models, tmp_path, recompute="selective"))
    (case,) = quick[1]
    assert (case.recompute, read(tmp_path)["settings"]["recompute"]) == ("selective", "selective")
    assert "not compiled, selective activation checkpointing of ours" in (tmp_path / "train.md").read_text()


def test_files_may_be_typed_one_by_one(models, tmp_path, quick):
    command = [*words(models, tmp_path, "tpa"), "-c", str(models / "mha.yaml")]
    assert [entry.name for entry in run(command).entries] == ["tpa", "mha"]


def test_a_wrong_case_has_no_speed_and_the_status_is_1(models, tmp_path, quick, capsys):
    quick[0]["tpa", OURS] = {"status": "wrong", "why": "gradient of x", "log": "much"}
    quick[0]["mha", OURS] = {"status": "no memory", "why": "9 GiB", "log": "much"}
    assert main(words(models, tmp_path, "tpa", "mha")) == 1
    shown = capsys.readouterr()
    assert "error: 1 cases are wrong and have no speed, such as tpa, ours, 2 × 16: gradient of x." in shown.err
    assert "* no memory: mha, ours, 2 × 16: 9 GiB" in shown.out
    assert read(tmp_path)["entries"][0]["log"] == "much"


def test_ctrl_c_keeps_what_was_measured(models, tmp_path, quick):
    quick[0]["mha", OURS] = KeyboardInterrupt()
    assert main(words(models, tmp_path, "tpa", "mha")) == 130
    assert read(tmp_path)["stopped"] == "stopped by Ctrl-C"
    assert "Of 2 cases 1 were measured: stopped by Ctrl-C." in (tmp_path / "train.md").read_text()
    assert (tmp_path / "train.png").exists()


def test_a_time_limit_keeps_what_was_measured_and_another_run_goes_on(models, tmp_path, quick, capsys):
    command = words(models, tmp_path, "tpa", "mha")
    run([*command, "--seconds=1e-9"])
    assert [entry["name"] for entry in read(tmp_path)["entries"]] == ["tpa"]
    assert read(tmp_path)["stopped"] == "stopped by --seconds"
    assert main(command) == 1
    assert "train.json is there: --resume true adds to it, --overwrite true replaces it." in capsys.readouterr().err
    results = run([*command, "--resume=true"])
    assert [case.name for case in quick[1]] == ["tpa", "mha"]
    assert [entry.name for entry in results.entries] == ["tpa", "mha"]
    assert len(results.facts["commands"]) == 2
    assert main([*command, "--resume=true", "--steps=3"]) == 1
    assert "was measured with steps 2, this is 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--batch=1,2,3", "--seq_len=8,16"], "batch: 3 numbers for 2 of seq_len; expected one, or as many."),
        (["--seq_len", "0"], "seq_len: expected numbers of at least 1, got [0]."),
        (["--steps=0"], "steps must be above 0, got 0."),
        (["--precision=bf16-true"], "precision: 'bf16-true' is not one of its values; did you mean bf16-mixed? There"),
        (["--config=nowhere.yaml"], "nowhere.yaml: no such configuration file."),
        (["--upstream=/nowhere"], "upstream: /nowhere has no model/T6.py; expected a clone of"),
        (["--device=gpu"], "device: 'gpu', expected cuda, cuda:1 … or cpu."),
        (["--resume=true", "--overwrite=true"], "choose one."),
        (["--sequence=3"], "there is no option --sequence"),
    ],
)
def test_errors_are_one_line(given, message, models, tmp_path, capsys):
    assert main([*words(models, tmp_path / "speed"), *given]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "speed").exists()


def test_two_files_of_one_name(models, tmp_path, capsys):
    shutil.copy(models / "tpa.yaml", tmp_path / "tpa.yaml")
    assert main([*words(models, tmp_path / "speed"), f"--config={tmp_path / 'tpa.yaml'}"]) == 1
    assert "config: two files are called tpa" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "train", "--help"])
    shown = capsys.readouterr().out
    assert "python cli.py bench train --output" in shown
    assert "--seq_len 8192 32768" in shown
    assert all(Path(file).is_file() for file in train.CONFIGS)

"""How a report says that a study was made."""

import shlex
import subprocess
from dataclasses import replace

import pytest
import yaml
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from lit_t6.cli import run
from lit_t6.sweeps.begun import load_asked
from lit_t6.sweeps.pack import pack
from lit_t6.sweeps.report.command import sweep_report
from lit_t6.sweeps.report.described import describe
from lit_t6.sweeps.report.method import anew, in_common
from lit_t6.training.event_records import as_record

from .reported import CELLS, begun, rows

DATA = "data/plays: tokens 10,000 train, 9,000 validation, 800 test; vocabulary of 1,024"
SETTINGS = {
    "trainer": {"devices": "1", "num_nodes": 1, "max_steps": 40, "accumulate_grad_batches": 2},
    "model": {"optimizer": {"lr": 4e-3, "min_lr": 2e-4, "warmup_steps": 10}, "d_model": 128, "num_layers": 2},
    "data": {"path": "data/plays", "batch_size": 4, "global_batch_size": None, "seq_len": None, "eval_windows": 10},
}


def write_folder(folder, layers=2, parameters=1234):
    """What a training leaves in its folder before its first step."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {**SETTINGS["model"], "num_layers": layers, "max_seq_len": 32}
    (folder / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, "model": model}))
    session = plugin_data_pb2.SessionStartInfo()
    for name, value in {"parameters": parameters, "cache_bytes_per_token": 640, "num_heads": 3}.items():
        session.hparams[name].number_value = value
    mark = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_start_info=session))
    text = f"| | |\n|---|---|\n| **device** | 1 × CPU, precision bf16-mixed |\n| **data** | {DATA} |\n"
    page = Summary.Value(
        tag="run/model/text_summary",
        metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
        tensor=TensorProto(dtype="DT_STRING", string_val=[text.encode()]),
    )
    values = [Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=mark), page]
    event = Event(step=0, summary=Summary(value=values))
    before = folder / "events.out.tfevents.1.host.t6"
    written = before.read_bytes() if before.exists() else b""
    before.write_bytes(as_record(event) + written)


def test_what_all_trainings_share_is_told(tmp_path):
    for name in ("a", "b"):
        write_folder(tmp_path / name)
    assert in_common([describe(tmp_path / name) for name in ("a", "b", "elsewhere")]) == [
        ("layers", "2"),
        ("model width", "128"),
        ("context", "32 tokens"),
        ("length", "40 steps"),
        ("batch", "4 sequences a device, 8 a step = 256 tokens"),
        ("learning rate", "0.004, at the end 0.0002; 10 steps of warmup"),
        ("precision", "bf16-mixed"),
        ("data", "data/plays"),
        ("trained on", "10,240 tokens, 1 times the 10,000 there are"),
        ("validated on", "320 tokens, the first of 9,000"),
    ]
    write_folder(tmp_path / "c", layers=4)
    assert dict(in_common([describe(tmp_path / name) for name in ("a", "c")]))["layers"] == "varied"


def test_a_folder_that_tells_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [")
    assert in_common([describe(tmp_path), describe(tmp_path / "none")]) == []


def test_a_report_from_an_archive_tells_the_same(tmp_path):
    _, ledger, folder = begun(tmp_path)
    for key in ledger.jobs:
        write_folder(folder / key)
    pack(ledger, folder, tmp_path / "study.tar.gz")
    sweep_report([str(folder)], output=str(tmp_path / "report"))
    run(["sweep", "report", "--from", str(tmp_path / "study.tar.gz"), "--output", str(tmp_path / "again")])
    tables = [
        [
            line
            for line in (tmp_path / name / "report.md").read_text().partition("## How")[2].splitlines()
            if "|" in line
        ]
        for name in ("report", "again")
    ]
    assert len(tables[0]) == 12
    assert tables[0] == tables[1]


@pytest.mark.parametrize("packed", [True, False])
def test_the_command_trains_the_same_study_from_the_start(tmp_path, monkeypatch, packed):
    monkeypatch.chdir(tmp_path)
    _, ledger, folder = begun(tmp_path, options={"trainer.max_steps": 3})
    (folder / "configs/some.yaml").write_text("trainer: {max_epochs: 3}\n")
    archive = "a study.tar.gz" if packed else None
    if packed:
        pack(ledger, folder, tmp_path / archive)
        (folder / "configs/some.yaml").unlink()
        study, folder = load_asked([], {}, str(tmp_path / "scratch"), archive)
    else:
        study, folder = load_asked([str(folder)], {}, "logs")
    told = anew(study, folder, {"seeds": [0, 1]}, archive)
    *before, last = told.split(" && ")
    subprocess.run(" && ".join(before), shell=True, check=True)
    words = shlex.split(last)
    assert words[:4] == ["python", "cli.py", "sweep", "run"]
    assert words[5:] == ["--seeds", "[0, 1]", "--name", "made_up-again"]
    again, fresh = load_asked(words[4:5], {"seeds": [0, 1], "name": "made_up-again"}, "logs")
    assert again.digest() == study.digest()
    assert fresh.resolve() == (tmp_path / "logs/sweeps/made_up-again").resolve()
    assert not (fresh / "journal.log").exists()


def test_a_study_that_is_named_by_its_files_is_run_by_them(tmp_path):
    study, _, folder = begun(tmp_path)
    told = f"python cli.py sweep run {study.files[0]}"
    assert anew(study, folder) == told
    assert anew(replace(study, seeds=(0, 7)), folder) == f"{told} --seeds '[0, 7]'"
    study = replace(study, seeds=(0,))
    assert anew(study, folder, {"seeds": [0]}) == f"python cli.py sweep run {study.files[0]} --seeds '[0]'"


def test_cells_that_diverged_before_they_could_tell_have_their_sizes(tmp_path):
    values = {"base": [1.0, 1.1], "bad": ["diverged"] * 2}
    _, _, folder = begun(tmp_path, values, {name: CELLS[name] for name in values}, seeds=[0, 1])
    (folder / "journal.log").unlink()
    for path in folder.glob("bad/*/trial.json"):
        path.write_text(path.read_text().replace('"num_parameters"', '"nothing"'))
        write_folder(path.parent, parameters=4321)
    sweep_report([str(folder)], output=str(tmp_path / "report"))
    assert "4,321" in (tmp_path / "report/report.md").read_text()
    assert rows((tmp_path / "report/cells.csv").read_text())["bad"]["num_parameters"] == "4321"

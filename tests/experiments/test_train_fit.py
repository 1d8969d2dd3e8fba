import json

import pytest
import yaml

from experiments.train_speed import fit
from experiments.train_speed.fit import Run

ATTENTION = {"class_path": "TPA", "init_args": {"num_heads": 3, "head_dim": 16}}
MODEL = {"vocab_size": 512, "max_seq_len": 32, "d_model": 32, "num_layers": 1, "attention": ATTENTION}


@pytest.fixture
def config(tmp_path):
    logger = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger"}
    whole = {"model": MODEL, "data": {"num_workers": 0}, "trainer": {"logger": logger}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(whole))
    return tmp_path / "tiny.yaml"


@pytest.mark.slow
def test_a_training_is_compared_with_its_step(config, tmp_path, capsys):
    words = ["--batch=2", "--steps=12", "--check_every=4", "--log_every=1", "--warmup=2", "--device=cpu"]
    assert fit.main([f"--config={config}", f"--output={tmp_path / 'out'}", *words]) == 0
    found = json.loads((tmp_path / "out" / "fit.json").read_text())
    trained, alone = found["fit"], found["bare"]
    assert found["of_bare"] == pytest.approx(trained["tokens_per_sec"] / alone["tokens_per_sec"])
    assert sorted(trained["checkpoints"]) == ["last.ckpt", "step=12.ckpt"]
    assert min(trained["checkpoints"].values()) > 0
    assert trained["checks"]["number"] == 2  # behind steps 4 and 8, of records 2 to 11
    assert trained["checks"]["seconds"] > 0
    assert trained["checks"]["tokens_per_sec"] < trained["tokens_per_sec"]
    assert sorted(trained["losses"], key=int) == [str(step) for step in range(1, 13)]
    table = (tmp_path / "out" / "fit.md").read_text()
    assert f"| {trained['tokens_per_sec']:,.0f} | {found['of_bare']:.3f} |" in table
    assert table in capsys.readouterr().out


@pytest.mark.slow
def test_what_failed_is_told(config, tmp_path, capsys):
    words = ["--batch=2", "--steps=12", "--check_every=4", "--log_every=1", "--warmup=2", "--device=cpu"]
    nowhere = tmp_path / "nowhere"
    assert fit.main([f"--config={config}", f"--output={tmp_path / 'out'}", f"--data={nowhere}", *words]) == 1
    said = capsys.readouterr().err
    assert "fit: it ended with status" in said
    assert str(nowhere) in said
    assert json.loads((tmp_path / "out" / "fit.json").read_text())["fit"]["status"] == "failed"
    assert not (tmp_path / "out" / "fit.md").exists()


def test_the_words_of_a_training_ask_for_checkpoints():
    words = Run("x.yaml", 20, 140, 50, 5, 15, "cuda:1").words("data", "logs")
    assert {"--trainer.accelerator=gpu", "--trainer.devices=[1]", "--trainer.val_check_interval=50"} <= set(words)
    assert not any("enable_checkpointing" in word for word in words)


def test_too_few_steps_are_refused_first(tmp_path, capsys):
    with pytest.raises(SystemExit):
        fit.main([f"--output={tmp_path / 'out'}", "--steps=20", "--device=cpu"])
    assert "--steps 20: expected at least 50" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

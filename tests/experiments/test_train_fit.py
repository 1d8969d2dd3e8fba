import json

import pytest
import yaml
from torch.utils.tensorboard import SummaryWriter

from experiments.train_speed import fit
from experiments.train_speed.fit import Run

ATTENTION = {"class_path": "TPA", "init_args": {"num_heads": 3, "head_dim": 16}}
MODEL = {"vocab_size": 512, "max_seq_len": 32, "d_model": 32, "num_layers": 1, "attention": ATTENTION}
SMALL = ["--batch=2", "--steps=12", "--check_every=4", "--log_every=1", "--warmup=2", "--device=cpu"]


@pytest.fixture
def config(tmp_path):
    logger = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger"}
    whole = {"model": MODEL, "data": {"num_workers": 0}, "trainer": {"logger": logger}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(whole))
    return tmp_path / "tiny.yaml"


@pytest.mark.slow
def test_a_training_is_compared_with_its_step(config, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # files are looked for where the program is started
    assert fit.main([f"--config={config.name}", "--output=out", *SMALL]) == 0
    found = json.loads((tmp_path / "out" / "fit.json").read_text())
    trained, alone = found["fit"], found["bare"]
    assert found["of_bare"] == pytest.approx(trained["tokens_per_sec"] / alone["tokens_per_sec"])
    assert sorted(trained["checkpoints"]) == ["last.ckpt", "step=12.ckpt"]
    assert min(trained["checkpoints"].values()) > 0
    assert len(trained["checks"]["seconds"]) == 2  # behind steps 4 and 8, of records 2 to 11
    assert min(trained["checks"]["seconds"]) > 0
    assert trained["checks"]["tokens_per_sec"] < trained["tokens_per_sec"]
    assert sorted(trained["losses"], key=int) == [str(step) for step in range(1, 13)]
    table = (tmp_path / "out" / "fit.md").read_text()
    assert f"| {trained['tokens_per_sec']:,.0f} | {found['of_bare']:.3f} |" in table
    assert table in capsys.readouterr().out


@pytest.mark.slow
def test_what_failed_is_told(config, tmp_path, capsys):
    """And no table of an earlier run is left beside it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fit.md").write_text("of before")
    assert fit.main([f"--config={config}", f"--output={tmp_path / 'out'}", "--seconds=0.01", *SMALL]) == 1
    assert "fit: it took longer than 0 s (--seconds)" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "fit.json").read_text())["fit"]["status"] == "failed"
    assert not (tmp_path / "out" / "fit.md").exists()


def test_both_are_of_one_kind(config):
    """On a GPU whatever the file says: compiled, of mixed precision, and nothing computed again."""
    run = Run("x.yaml", 20, 140, 50, 5, 15, "cuda:1")
    words = run.words("data", "logs")
    assert {"--trainer.accelerator=gpu", "--trainer.devices=[1]", "--trainer.val_check_interval=50"} <= set(words)
    assert {"--model.compile=true", "--model.recompute=none", "--trainer.precision=bf16-mixed"} <= set(words)
    assert not any("enable_checkpointing" in word for word in words)
    case = run.case(fit.ModelReader().read(["--config", str(config)]).resolved())
    assert (case.compile, case.recompute, case.precision) == (True, "none", "bf16-mixed")
    assert (case.device, case.batch, case.seq_len, case.warmup, case.steps) == ("cuda:1", 20, 32, 15, 125)


@pytest.mark.parametrize(
    ("check_every", "log_every", "seconds", "steps_between"), [(50, 5, [2.0, 4.0], 127), (25, 60, [3.5, 3.5, 5.0], 82)]
)
def test_checks_are_what_the_clock_has_beside_steps(tmp_path, check_every, log_every, seconds, steps_between):
    """The last record is of fewer steps than the others; checks between the same two are told by their mean."""
    steps = 142
    run = Run("x.yaml", 20, steps, check_every, log_every, 15, "cpu")
    clock = 1000.0
    with SummaryWriter(str(tmp_path)) as writer:
        before = 0
        for step in [*range(log_every, steps, log_every), steps]:
            clock += 0.1 * (step - before) + sum(0.04 * s for s in range(before + 1, step + 1) if s % check_every == 0)
            writer.add_scalar("perf/step_ms", 100.0, step - 1, walltime=clock)
            writer.add_scalar("progress/tokens", 7.0 * step, step - 1, walltime=clock)
            before = step
    found = fit.checks(tmp_path, run)
    assert found["seconds"] == pytest.approx(seconds, abs=1e-3)
    expected = 7.0 * steps_between / (0.1 * steps_between + sum(seconds))
    assert found["tokens_per_sec"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps=20"], "--steps 20: with --warmup 15, --log_every 5 and --check_every 1000 no check lies between"),
        (["--log_every=1000"], "no check lies between"),
        (["--data=nowhere"], "nowhere"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_refused_first(config, tmp_path, capsys, words, said):
    with pytest.raises(SystemExit):
        fit.main([f"--config={config}", f"--output={tmp_path / 'out'}", "--device=cpu", *words])
    told = capsys.readouterr().err
    assert said in told
    assert "--data.path" not in told
    assert not (tmp_path / "out").exists()

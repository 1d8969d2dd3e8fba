import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.cli import COMMANDS, main, run
from lit_t6.training import read_checkpoint

MHA, TPA = "configs/attention/mha.yaml", "configs/attention/tpa.yaml"


def fit(options, *more):
    finished = run(["fit", *options, *more])
    return finished, f"{finished.trainer.log_dir}/checkpoints/last.ckpt"


@pytest.mark.parametrize("mechanism", ["tpa", "mha", "mqa", "gqa"])
def test_validate_gives_the_loss_that_fit_logged(options, mechanism):
    finished, checkpoint = fit(options, f"--config=configs/attention/{mechanism}.yaml")
    logged = finished.trainer.callback_metrics["val/loss"].item()
    again = run(["validate", *options, f"--config=configs/attention/{mechanism}.yaml", "--ckpt_path", checkpoint])
    assert again.trainer.callback_metrics["val/loss"].item() == pytest.approx(logged, abs=1e-6)
    bare = run(["validate", "--ckpt_path", checkpoint, "--trainer.enable_progress_bar=false"])
    assert bare.trainer.callback_metrics["val/loss"].item() == pytest.approx(logged, abs=1e-6)


def test_the_later_config_and_the_typed_option_win_and_the_class_stays(options, capsys):
    words = [
        "fit",
        "--model.attention.num_kv_heads=1",
        *options,
        f"--config={TPA}",
        f"--config={MHA}",
        "--print_config",
    ]
    with pytest.raises(SystemExit) as stop:
        run(words)
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    attention = printed["model"]["attention"]
    assert attention["class_path"] == "lit_t6.attention.MultiHeadConfig"
    assert attention["init_args"]["num_kv_heads"] == 1
    assert attention["init_args"]["head_dim"] == 8
    assert printed["model"]["optimizer"]["lr"] == 4e-3
    assert "rank_q" not in attention["init_args"]


def test_the_printed_config_builds_the_same_model(options, capsys, tmp_path):
    with pytest.raises(SystemExit):
        run(["fit", *options, f"--config={MHA}", "--model.attention.num_kv_heads=2", "--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    finished, _ = fit([f"--config={tmp_path / 'printed.yaml'}"])
    assert finished.model.config.attention == MultiHeadConfig(14, 2, 8)
    saved = yaml.safe_load(Path(finished.trainer.log_dir, "config.yaml").read_text())
    assert saved["model"]["attention"]["class_path"] == "lit_t6.attention.MultiHeadConfig"


def test_default_mechanism_is_tpa(prepared, tmp_path):
    words = [f"--data.path={prepared}", "--model.vocab_size=400", "--model.d_model=128", "--model.num_layers=1"]
    words += [f"--trainer.logger.init_args.save_dir={tmp_path}", "--trainer.max_steps=1", "--data.batch_size=1"]
    words += ["--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false", "--model.max_seq_len=16"]
    finished, _ = fit([*words, "--model.attention.num_heads=2", "--data.num_workers=0"])
    assert finished.model.config.attention == TPAConfig(2)


def test_a_typed_option_wins_over_the_checkpoint(options, prepared):
    _, checkpoint = fit(options)
    found = read_checkpoint(checkpoint).options()
    assert found["data"]["path"] == str(prepared)
    assert found["model"]["vocab_size"] == 400
    finished = run(["validate", "--ckpt_path", checkpoint, "--data.eval_batch_size=3", "--data.seq_len=48"])
    assert finished.datamodule.eval_batch_size == 3
    assert finished.datamodule.seq_len == 48
    with pytest.raises(ValueError, match="another model than the one configured: model.num_layers is 1 there, 2 here"):
        run(["validate", "--ckpt_path", checkpoint, "--model.num_layers=2"])
    with pytest.raises(ValueError, match="class_path is lit_t6.attention.TPAConfig there, .*MultiHeadConfig here"):
        run(["validate", "--ckpt_path", checkpoint, f"--config={MHA}"])


def test_fit_goes_on_from_a_checkpoint(options, caplog):
    _, checkpoint = fit(options)
    with pytest.warns(UserWarning, match="The dirpath has changed"):  # each run has a folder of its own
        finished, _ = fit(options, "--ckpt_path", checkpoint, "--trainer.max_steps=5")
    assert finished.trainer.global_step == 5
    assert finished.datamodule.samples_seen == 5 * 16
    run(["validate", "--ckpt_path", checkpoint])
    assert not [text for text in caplog.messages if text.startswith(("Seed set", "Restor", "Loaded"))]


def test_predict_writes_the_loss_of_every_document(options, tmp_path, prepared):
    finished, checkpoint = fit(options)
    path = tmp_path / "losses.jsonl"
    run(["predict", "--ckpt_path", checkpoint, f"--predictions.path={path}", "--trainer.enable_progress_bar=false"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    split = finished.datamodule.manifest.splits["validation"]
    assert [line["document"] for line in lines] == list(range(split.documents))
    assert sum(line["bytes"] for line in lines) == split.bytes
    assert sum(line["tokens"] for line in lines) == split.tokens - 1
    mean = sum(line["loss"] * line["tokens"] for line in lines) / (split.tokens - 1)
    assert mean == pytest.approx(finished.trainer.callback_metrics["val/loss"].item(), rel=1e-5)


def test_test_uses_the_test_split(options):
    _, checkpoint = fit(options)
    finished = run(["test", "--ckpt_path", checkpoint, "--trainer.enable_progress_bar=false"])
    assert set(finished.trainer.callback_metrics) == {"test/loss", "test/perplexity", "test/bits_per_byte"}


def test_generate_streams_text(options, capsys):
    _, checkpoint = fit(options)
    words = ["generate", "--ckpt_path", checkpoint, "--prompt", "Ünïcode: ", "--max_new_tokens", "20", "--seed", "1"]
    text = run(words)
    assert text.startswith("Ünïcode: ")
    assert capsys.readouterr().out.endswith(text + "\n")
    assert run(words) == text
    assert run([*words[:-1], "2"]) != text
    assert run([*words, "--temperature", "0"]) == run([*words[:-1], "5", "--temperature", "0"])


def test_prepare(tmp_path, texts, capsys):
    assert main(["prepare", str(texts), "--output", str(tmp_path / "out"), "--vocab_size", "300"]) == 0
    out, error = capsys.readouterr()
    assert error == ""  # no bar where there is no terminal
    assert "vocabulary of 300" in out
    assert re.search(r"train +74 documents", out)


def test_every_command_has_help_and_the_overview_names_it(capsys):
    assert main([]) == main(["--help"]) == 0
    overview = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in overview
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert f"usage: python cli.py {command}" in shown
        assert "TPAConfig lists" not in shown  # a mechanism goes by its short name
        assert "--overwrite]" not in shown  # it is `--overwrite true` wherever it is
        assert "examples:" in shown


def test_typed_over_later_over_earlier_config_over_checkpoint(options, tmp_path):
    _, checkpoint = fit(options, "--data.seed=1", "--model.optimizer.lr=0.001", "--data.eval_batch_size=3")
    (tmp_path / "earlier.yaml").write_text("data: {seed: 2, batch_size: 5}\nmodel: {optimizer: {lr: 0.002}}")
    (tmp_path / "later.yaml").write_text("data: {seed: 3}")
    words = ["--data.num_workers=0", "--ckpt_path", checkpoint, "--model.optimizer.lr=0.004"]
    words += [f"--config={tmp_path / name}.yaml" for name in ("earlier", "later")]
    finished = run(["validate", *words, "--trainer.enable_progress_bar=false"])
    assert finished.model.optimizer_config.lr == 0.004  # typed, before the files
    assert finished.datamodule.seed == 3  # later file
    assert finished.datamodule.batch_size == 5  # earlier file
    assert finished.datamodule.eval_batch_size == 3  # checkpoint
    assert finished.model.config.d_model == 64  # checkpoint


@pytest.mark.parametrize("path", sorted(map(str, Path("configs/attention").glob("*.yaml"))), ids=lambda p: Path(p).stem)
def test_every_mechanism_trains_over_the_quickstart(options, path):
    finished = run(["fit", options[0], f"--config={path}", *options[1:], "--trainer.max_steps=5"])
    named = yaml.safe_load(Path(path).read_text())["model"]["attention"]
    attention = finished.model.config.attention
    assert type(attention).__name__ == named["class_path"].rpartition(".")[2]
    for name, value in named["init_args"].items():
        assert name == "num_heads" or getattr(attention, name) == value
    assert finished.trainer.global_step == 5
    assert finished.trainer.callback_metrics["val/loss"].isfinite()


@pytest.mark.parametrize("mechanism", ["tpa", "tpa-qonly"])
def test_one_mechanism_over_another_leaves_nothing_behind(options, mechanism):
    words = [f"--config=configs/attention/{name}.yaml" for name in ("gqa", mechanism)]
    finished = run(["fit", options[0], *words, *options[1:], "--trainer.max_steps=1"])
    assert finished.model.config.attention.num_kv_heads is None
    finished = run(
        [
            "fit",
            options[0],
            words[0],
            *options[1:],
            "--model.attention",
            mechanism.replace("tpa", "TPA").replace("q", "Q"),
            "--trainer.max_steps=1",
        ]
    )
    assert finished.model.config.attention.num_kv_heads is None


@pytest.mark.parametrize("name", ["TPA", "MHA", "MQA", "GQA", "MLA", "MFA"])
def test_short_names_of_mechanisms(options, name):
    finished, _ = fit(options, "--model.attention", name, "--trainer.max_steps=1")
    typed = finished.model.config.attention
    stacked, _ = fit(options, f"--config=configs/attention/{name.lower()}.yaml", "--trainer.max_steps=1")
    assert typed == stacked.model.config.attention
    assert typed.head_dim == 8  # of the options before


def test_another_model_takes_what_fits_when_asked(options, capsys):
    trained, checkpoint = fit(options)
    words = [*options, "--model.num_layers=2", "--ckpt_path", checkpoint]
    finished, _ = fit(words, "--convert=true", "--trainer.max_steps=1")
    assert finished.trainer.global_step == 1
    assert "6 weights taken, 4 drawn afresh." in " ".join(capsys.readouterr().out.split())
    again = run(["validate", *options, "--ckpt_path", checkpoint, "--convert=true"])
    logged = trained.trainer.callback_metrics["val/loss"].item()
    assert again.trainer.callback_metrics["val/loss"].item() == pytest.approx(logged, abs=1e-6)
    with pytest.raises(
        ValueError, match=r"cannot be converted: 4 of 10 weights have another name or shape, such as bl"
    ):
        run(["validate", *words, "--convert=true"])


def test_debug_shows_where(tmp_path):
    with pytest.raises(ValueError, match="no such checkpoint"):
        main(["--debug", "validate", "--ckpt_path", str(tmp_path / "none.ckpt")])


def test_resuming_into_the_same_folder(options, tmp_path):
    words = [*options, "--trainer.logger.init_args.version=same"]
    _, checkpoint = fit(words)
    finished, _ = fit(words, "--ckpt_path", checkpoint, "--trainer.max_steps=4")
    saved = yaml.safe_load(Path(finished.trainer.log_dir, "config.yaml").read_text())
    assert saved["trainer"]["max_steps"] == 4


def test_a_run_without_a_logger_leaves_no_configuration_behind(options, tmp_path, monkeypatch):
    words = [word for word in options if "logger" not in word] + [f"--trainer.default_root_dir={tmp_path}"]
    for _ in range(2):
        run(
            [
                "fit",
                *words,
                "--trainer.logger=false",
                f"--checkpoint.dirpath={tmp_path / 'c'}",
                "--checkpoint.monitor=null",
            ]
        )
        shutil.rmtree(tmp_path / "c")
    assert not list(tmp_path.glob("config.yaml"))


def test_a_run_may_keep_no_checkpoints(options, tmp_path, capsys):
    assert main(["fit", *options, "--trainer.enable_checkpointing=false"]) == 0
    out, error = capsys.readouterr()
    assert "warning: trainer.enable_checkpointing=false: the model is not kept, and the training cannot be" in error
    assert "val/loss" in out
    assert "generate --ckpt_path" not in out
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_validation_windows_travel_with_the_checkpoint(options, caplog):
    finished, checkpoint = fit(options, "--data.eval_windows=5")
    again = run(["validate", "--ckpt_path", checkpoint, "--trainer.enable_progress_bar=false"])
    assert "data.eval_windows=5: the first 5 of" in caplog.text
    logged = finished.trainer.callback_metrics["val/loss"].item()
    assert again.trainer.callback_metrics["val/loss"].item() == pytest.approx(logged, abs=1e-6)
    whole = run(["validate", "--ckpt_path", checkpoint, "--data.eval_windows=null"])
    assert whole.trainer.callback_metrics["val/loss"].item() != pytest.approx(logged, abs=1e-4)


def test_the_last_typed_checkpoint_counts(options):
    _, first = fit(options)
    _, second = fit([*options, "--model.num_layers=2"])
    finished = run(["validate", "--ckpt_path", first, "--ckpt_path", second])
    assert finished.model.config.num_layers == 2

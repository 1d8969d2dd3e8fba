import re

import pytest
import torch

from lit_t6.cli import main

MHA = "configs/attention/mha.yaml"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate", "--data.path=nowhere", "--model.num_layers=1"], "error: nowhere: no prepared data here"),
        (["train"], "error: there is no command 'train'. There are prepare, fit"),
        (["validat"], "error: there is no command 'validat'; did you mean validate?"),
        (["prepare", "nowhere", "--output", "out"], "error: nowhere: no such file or folder."),
        (["validate"], "error: validate needs --ckpt_path, the checkpoint to evaluate"),
        (["validate", "--ckptpath", "x"], "error: there is no option --ckptpath; did you mean --ckpt_path?"),
        (["test", "--data.path=x"], "error: test needs --ckpt_path, the checkpoint to evaluate"),
        (
            ["validate", "logs/t6/last.ckpt"],
            "error: 'logs/t6/last.ckpt' is not an option; did you mean --ckpt_path logs/t6/last.ckpt?",
        ),
        (["generate", "a/last.ckpt", "--prompt", "x"], "is not an option; did you mean --ckpt_path a/last.ckpt?"),
        (["generate", "LICENSE"], "error: 'LICENSE' is not an option; did you mean --ckpt_path LICENSE?"),
        (["fit", MHA], f"error: '{MHA}' is not an option; did you mean --config {MHA}?"),
        (["generate", "--ckpt_path=x", "--prompt", "It", "was"], "'was' is not an option: quote a prompt of several"),
        (["generate", "--ckpt_path", "README.md"], "error: README.md: not a checkpoint, or a damaged one: its"),
        (["validate", "--ckpt_path", "none.ckpt"], "error: none.ckpt: no such checkpoint."),
        (["generate", "--ckpt_path", "none.ckpt"], "error: none.ckpt: no such checkpoint."),
        (
            ["fit", "--data.path=nowhere", "--trainer.max_steps=1"],
            "error: nowhere: no prepared data here (manifest.json is missing). Make it with",
        ),
        (["fit", "--model.attention=TPAConfig", "--model.attention.head_dim=9"], "head_dim=9 is odd"),
        (["fit", "--config=nowhere.yaml"], "nowhere.yaml: no such configuration file."),
        (["fit", "--model.d_modle=64"], "error: there is no option --model.d_modle; did you mean --model.d_model?"),
        (["fit", "--d_model=64"], "error: there is no option --d_model; did you mean --model.d_model?"),
        (["fit", "--trainer.max_step=4"], "there is no option --trainer.max_step; did you mean --trainer.max_steps?"),
        (["fit", "d_model"], "error: 'd_model' is not an option: options start with --"),
        (["fit", "--model.d_model=wide"], "error: model.d_model: expected int, got 'wide'."),
        (["fit", "--model.attention=TPX"], "error: model.attention: 'TPX' is not a mechanism; did you mean TPA? There"),
        (["fit", "--model.attention.rank_qq=3"], "TPAConfig has no setting 'rank_qq'; did you mean rank_q? It has num"),
        (["fit", "--model.attention.rank_q=three"], "error: model.attention.rank_q: expected int, got 'three'."),
        (["fit", "--model.attention.head_dim=4096"], "no head count meets the budget of 2,359,296 parameters a layer"),
        (
            ["fit", "--trainer.logger=TensorBordLogger"],
            "'TensorBordLogger' is not known; did you mean TensorBoardLogger?",
        ),
        (
            ["fit", "--trainer.strategy=fdsp"],
            "error: trainer.strategy: there is no 'fdsp'; did you mean fsdp? There are",
        ),
        (["fit", "--trainer.strategy=ddp_spawn"], "are started from within Python, where they can be neither stopped"),
        (
            ["fit", "--trainer.strategy.bucket_cap_mb=9"],
            "its options need the name typed too, such as --trainer.strategy",
        ),
        (
            ["fit", "--trainer.precision=fp16"],
            "trainer.precision: 'fp16' is not one of its values; did you mean 16-mixed?",
        ),
        (["fit", "--trainer.precision=float32"], "'float32' is not one of its values; did you mean 32-true? There are"),
        (["fit", "--trainer.precision=half"], "There are 16-true, 16-mixed, bf16-true, bf16-mixed, 32-true, 64-true, "),
        (
            ["fit", "--trainer.precision=transformer-engine"],
            "error: trainer.precision=transformer-engine: needs NVIDIA's package transformer_engine, which is not",
        ),
        (
            ["fit", "--checkpoint.mode=maxx"],
            "error: checkpoint.mode: 'maxx' is not one of its values; did you mean max?",
        ),
        (["fit", "--model.init=variannce"], "model.init: 'variannce' is not one of its values; did you mean variance?"),
        (["fit", "--convert=true"], "error: --convert true needs --ckpt_path"),
        (["validate", "--ckpt_path=last"], "error: --ckpt_path last: does not say of which run; give the file of a"),
        (["test", "--ckpt_path", "best"], "error: --ckpt_path best: does not say of which run; give the file of a"),
        (["predict", "--ckpt_path", "hpc", "--convert=true"], "error: --ckpt_path hpc: does not say of which run"),
        (
            ["fit", "--ckpt_path", "last"],
            "last.ckpt. Without --ckpt_path the same command goes on with its unfinished run.",
        ),
        (["fit", "--ckpt_path=best"], "error: --ckpt_path best: does not say of which run; give the file of a"),
        (["prepare", "--vocab_siz=9", "x"], "error: there is no option --vocab_siz; did you mean --vocab_size?"),
        (["generate"], "error: generate needs --ckpt_path; `python cli.py generate --help` explains."),
        (["prepare", "README.md"], "error: prepare needs --output;"),
        (["convert", "x", "--arch=T6", "--output=y"], "error: convert needs --from upstream|shards;"),
        (["convert", "--from=foo", "x"], "error: --from: 'foo' is not one of its values. There are upstream, shards."),
        (["fit", "--data.path"], "error: --data.path needs a value."),
        (["fit", "--config=configs"], "error: configs: is a folder; expected a YAML file, such as configs/attention/g"),
        (
            ["fit", "--config=configs/quikstart.yaml"],
            "error: configs/quikstart.yaml: no such configuration file; did you mean configs/quickstart.yaml?",
        ),
        (
            ["fit", f"--model.attention={MHA}"],
            f"TPA-Qonly, got the file {MHA}. If it holds options, pass it as --config {MHA}.",
        ),
        (["fit", "--model.attention=none.yaml"], "got the file none.yaml. If it holds options, pass it as --config"),
        (
            ["fit", "--model.attention.factorized=kvq"],
            "error: model.attention.factorized: 'kvq' is not one of its values; did you mean kv? There are qkv, kv, q.",
        ),
        (
            ["fit", "--model.optimizer=AdamW"],
            "error: model.optimizer: expected a YAML file with its settings, got 'AdamW'. Its settings are options of "
            "their own: --model.optimizer.lr, ",
        ),
        (["fit", "--data=data/mine"], "got 'data/mine'. Its settings are options of their own: --data.path, "),
        (["fit", "--model.attention.help=Foo"], "error: model.attention: 'Foo' is not a mechanism. There are GQA, "),
        (["fit", "--model.attention.help=MHHA"], "error: model.attention: 'MHHA' is not a mechanism; did you mean MHA"),
        (["fit", "--model.attention=lit_t6.model.T6Config"], "'lit_t6.model.T6Config' is not a mechanism"),
        (
            ["fit", "--trainer.callbacks=Foo"],
            "error: trainer.callbacks: 'Foo' is not known. Expected a class by its na",
        ),
        (["fit", "--trainer.callbacks.help=Foo"], "error: trainer.callbacks: 'Foo' is not known. Expected a class"),
        (["fit", "--trainer.callbacks=EarlyStoping"], "'EarlyStoping' is not known; did you mean EarlyStopping?"),
        (["fit", "--trainer.logger.init_args.savedir=x"], "has no setting 'savedir'; did you mean save_dir? It has"),
        (["fit", "--data.seq_len=abc"], "error: data.seq_len: expected int or null, got 'abc'."),
        (["budget", "--context=abc"], "error: context: expected int or null, got 'abc'."),
        (["fit", "--data.path=configs"], "If this is the text, make it with `python cli.py prepare configs --output"),
        (["validate", "--ckpt_path", "configs"], "error: configs: is a folder; expected the file of a checkpoint."),
        (
            ["prepare", "README.md", "--output", "/nowhere/at/all", "--test_fraction=5"],
            "error: test_fraction must be in [0, 1), got 5.0.",
        ),
        (["fit", "--auto_resume=maybe"], "error: auto_resume: expected true or false, got 'maybe'."),
    ],
)
def test_errors_of_the_user_are_one_line(words, message, capsys, tmp_path):
    if words[0] == "fit":
        words = [*words, f"--trainer.logger.init_args.save_dir={tmp_path}"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len([line for line in error.splitlines() if line.strip()]) == 1
    assert not list(tmp_path.iterdir())  # nothing half-made


@pytest.mark.parametrize(
    ("yaml_text", "message"),
    [
        ("model: {d_modle: 64}", "there is no option model.d_modle; did you mean model.d_model?"),
        ("modell: {d_model: 64}", "there is no option modell.d_model; did you mean model.d_model?"),
        (
            "model: {attention: {class_path: lit_t6.attention.TPAConfigg}}",
            "TPAConfigg' is not a mechanism; did you mean TPAC",
        ),
        (
            "model: {attention: {class_path: TPA, init_args: {rank: 3}}}",
            "TPAConfig has no setting 'rank'; did you mean rank_",
        ),
        ("model: {d_model: wide}", "model.d_model: expected int, got 'wide'"),
        ("ckpt_path: last", "--ckpt_path last: does not say of which run; give the file of a checkpoint"),
        ("model: [", "a.yaml, line 1: broken YAML: while parsing"),
        ("", "a.yaml: expected options, such as `model:` with settings below it, found nothing."),
        ("- a", "a.yaml: expected options, such as `model:` with settings below it, found ['a']."),
        ("model: 3", "a.yaml: model: expected settings below it, found 3."),
    ],
)
def test_errors_in_a_yaml_file_are_one_line(yaml_text, message, capsys, tmp_path):
    (tmp_path / "a.yaml").write_text(yaml_text)
    assert main(["fit", "--config", str(tmp_path / "a.yaml")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_configuration_that_is_no_text_is_named(capsys, tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    assert main(["fit", "--config", str(tmp_path / "a.yaml")]) == 1
    assert "a.yaml: not a YAML file: it is not text" in capsys.readouterr().err


def test_a_mechanism_may_be_a_file_of_its_own(capsys, tmp_path):
    (tmp_path / "gqa.yaml").write_text("class_path: lit_t6.attention.MultiHeadConfig\ninit_args: {num_kv_heads: 2}")
    with pytest.raises(SystemExit):
        main(["fit", f"--model.attention={tmp_path / 'gqa.yaml'}", "--print_config"])
    assert "num_kv_heads: 2" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_named(options, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert main(["fit", *options, f"--trainer.logger.init_args.save_dir={tmp_path / 'file' / 'logs'}"]) == 1
    error = capsys.readouterr().err
    assert "file/logs/quickstart/version_0: the folder of the run cannot be made (Not a directory). Choose" in error
    assert "Traceback" not in error
    assert main(["prepare", "README.md", "--output", str(tmp_path / "file" / "data")]) == 1
    assert "file/data: cannot be made (Not a directory); choose another folder." in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(options, capsys):
    assert main(["fit", *options, "--trainer.accelerator=gpu"]) == 1
    assert re.search(r"error: trainer.accelerator=gpu: PyTorch .* sees no GPU here \(", capsys.readouterr().err)


def test_a_clock_for_several_devices_is_refused_before_a_folder_is_made(options, capsys, tmp_path):
    words = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    assert main(["fit", *options, *words, "--trainer.val_check_interval=00:00:10:00"]) == 1
    error = capsys.readouterr().err
    assert "error: trainer.val_check_interval: a time (600 s) with 2 devices" in error
    assert not list(tmp_path.iterdir())

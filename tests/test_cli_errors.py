import re

import pytest
import torch

from lit_t6.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate", "--data.path=nowhere", "--model.num_layers=1"], "error: nowhere: no prepared data here"),
        (["train"], "error: there is no command 'train'. There are prepare, fit"),
        (["validat"], "error: there is no command 'validat'; did you mean validate?"),
        (["prepare", "nowhere", "--output", "out"], "error: nowhere: no such file or folder."),
        (["validate"], "error: validate needs --ckpt_path, the checkpoint to evaluate"),
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
        (["generate"], "ckpt_path"),
    ],
)
def test_errors_of_the_user_are_one_line(words, message, capsys, tmp_path):
    if words[0] == "fit":
        words = [*words, f"--trainer.logger.init_args.save_dir={tmp_path}"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len([line for line in error.splitlines() if line.strip() and not line.startswith("Seed set")]) == 1
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
        ("model: [", "while parsing"),
        ("ckpt_path: last", "--ckpt_path last: does not say of which run; give the file of a checkpoint"),
    ],
)
def test_errors_in_a_yaml_file_are_one_line(yaml_text, message, capsys, tmp_path):
    (tmp_path / "a.yaml").write_text(yaml_text)
    assert main(["fit", "--config", str(tmp_path / "a.yaml")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


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

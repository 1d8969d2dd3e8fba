import json

import pytest
import torch

from lit_t6 import LitT6
from lit_t6.cli import main, run
from lit_t6.interop import UPSTREAM_ARCHS, from_upstream, read_upstream
from lit_t6.training import read_checkpoint


@pytest.fixture
def words(upstream_folder, tmp_path):
    return [
        "convert",
        "--from",
        "upstream",
        "--arch",
        "T6",
        str(upstream_folder),
        "--output",
        str(tmp_path / "t6.ckpt"),
    ]


def test_a_converted_model_validates_and_generates(words, upstream_folder, prepared, tmp_path, capsys):
    tokenizer = str(prepared / "tokenizer.json")
    output = words[-1]
    assert main([*words, "--tokenizer", tokenizer]) == 0
    out = capsys.readouterr().out
    assert "t6.ckpt: TPA (3, 2, 2), 77,856 parameters\nnext: " in out
    assert "fit T6_ropek, T6_partialrope, T6_partialrope_decay as well: only you know that it is T6" in out
    assert [path.name for path in tmp_path.iterdir()] == ["t6.ckpt"]
    expected = from_upstream(*read_upstream(upstream_folder), "T6").eval()
    found = LitT6.load_from_checkpoint(output).model
    assert all(torch.equal(weight, expected.state_dict()[name]) for name, weight in found.state_dict().items())

    assert main(["validate", "--ckpt_path", output]) == 1
    assert "t6.ckpt: does not say what data it belongs to; pass --data.path" in capsys.readouterr().err
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    finished = run(["validate", "--ckpt_path", output, "--data.path", str(prepared), "--data.num_workers=0", *quiet])
    batches = finished.datamodule.val_dataloader()
    with torch.no_grad():
        nats = [expected.loss(b["tokens"], b["targets"], reduction="none")[b["targets"] != -100] for b in batches]
    loss = torch.cat(nats).mean().item()
    assert finished.trainer.callback_metrics["val/loss"].item() == pytest.approx(loss, rel=1e-5)

    greedy = ["--prompt=It was", "--temperature=0", "--max_new_tokens=5", "--device=cpu"]
    assert run(["generate", "--ckpt_path", output, *greedy]).startswith("It was")
    assert run(["generate", "--ckpt_path", output, "--tokenizer", tokenizer, *greedy]).startswith("It was")


def test_training_goes_on_from_a_converted_model(words, options, prepared, tmp_path, capsys):
    assert main(words) == 0
    checkpoint = read_checkpoint(words[-1])
    model = [
        "--ckpt_path",
        words[-1],
        "--data.path",
        str(prepared),
        "--data.num_workers=0",
        *options[-5:],
        "--trainer.max_steps=3",
    ]
    assert main(["fit", *model]) == 1
    assert "holds weights and no state of a training" in capsys.readouterr().err
    finished = run(["fit", *model, "--convert=true", "--model.optimizer.lr=1e-9", "--model.optimizer.min_lr=0"])
    assert finished.trainer.global_step == 3
    before = checkpoint.model().state_dict()["embedding.weight"]
    torch.testing.assert_close(finished.model.model.state_dict()["embedding.weight"].cpu(), before)


def test_a_checkpoint_without_tokenizer_says_so(words, capsys):
    assert main(words) == 0
    assert "generate --ckpt_path" in capsys.readouterr().out
    assert read_checkpoint(words[-1]).tokenizer() is None
    assert main(["generate", "--ckpt_path", words[-1], "--device=cpu"]) == 1
    assert "pass --tokenizer" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(words, tmp_path, capsys):
    output = tmp_path / "t6.ckpt"
    output.write_text("mine")
    assert main(words) == 1
    assert "exists already; give another --output, or --overwrite true to replace it." in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert main([*words, "--overwrite=true"]) == 0
    assert read_checkpoint(output).model().config.attention.num_heads == 5


def test_a_failure_leaves_no_file(words, tmp_path, prepared, upstream_folder, capsys):
    small = tmp_path / "small"
    small.mkdir()
    weights = torch.load(upstream_folder / "pytorch_model.bin")
    del weights["lm_head.weight"]
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:300]
    torch.save(weights, small / "pytorch_model.bin")
    config = json.loads((upstream_folder / "config.json").read_text()) | {"vocab_size": 300}
    (small / "config.json").write_text(json.dumps(config))
    words[5] = str(small)
    assert main([*words, "--tokenizer", str(prepared / "tokenizer.json")]) == 1
    assert "the tokenizer has 400 tokens, but the model has vocab_size=300" in capsys.readouterr().err
    words[-1] = str(tmp_path)
    assert main(words) == 1
    assert "is a folder; name a file in it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("change", "words_of_error"),
    [
        ({"--from": "hf"}, "--from: 'hf' is not one of its values. There are upstream, shards."),
        ({"--arch": "T7"}, "did you mean 'T6'?"),
        ({"--arch": "llama-mha"}, "the weights are those of T6, T6_ropek"),
        ({"--tokenizer": "nowhere.json"}, "nowhere.json: no such tokenizer file"),
        ({"--config_json": "nowhere.json"}, "nowhere.json: no such file."),
    ],
)
def test_errors_of_the_user(words, change, words_of_error, tmp_path, capsys):
    for option, value in change.items():
        words += [option, value]
    assert main(words) == 1
    assert words_of_error in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_lists_the_archs(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    shown = capsys.readouterr().out
    listed = shown.partition("authors' model files:\n")[2].partition("\n\n")[0]
    assert [name.strip() for name in listed.split(",")] == list(UPSTREAM_ARCHS)

import json
import math

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lit_t6.cli import main, run
from lit_t6.data import TokenDataModule
from lit_t6.training import DocumentLossWriter
from tests.training.runs import MHA, fit


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Echo(L.LightningModule):
    """Gives what a prediction would be."""

    def predict_step(self, batch, batch_idx):
        return batch


def predict(writer, batches):
    names = ("nats", "documents", "counted", "target_bytes")
    outputs = [{name: torch.tensor(value) for name, value in zip(names, batch, strict=True)} for batch in batches]
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", callbacks=[writer], enable_model_summary=False, **options)
    trainer.predict(Echo(), DataLoader(outputs, batch_size=None), return_predictions=False)


def test_losses_of_a_document_are_summed_over_batches(tmp_path, capsys):
    path = tmp_path / "deep" / "losses.jsonl"
    batches = [
        ([[1.0, 2.0]], [[0, 0]], [[True, True]], [[3, 4]]),
        ([[4.0, 8.0]], [[0, 2]], [[True, True]], [[1, 0]]),
        ([[9.0, 9.0]], [[5, 5]], [[False, False]], [[0, 0]]),
    ]
    predict(DocumentLossWriter(str(path)), batches)
    first = {"document": 0, "tokens": 3, "bytes": 8, "loss": pytest.approx(7 / 3), "complete": None}
    second = {"document": 2, "tokens": 1, "bytes": 0, "loss": 8.0, "bits_per_byte": None, "complete": None}
    assert read(path) == [{**first, "bits_per_byte": pytest.approx(7 / 8 / math.log(2))}, second]
    assert f"Losses of 2 documents are in {path}." in capsys.readouterr().out
    with pytest.raises(ValueError, match="exists already"):
        predict(DocumentLossWriter(str(path)), batches)
    predict(DocumentLossWriter(str(path), overwrite=True), batches[:1])
    assert [line["tokens"] for line in read(path)] == [2]
    assert f"Losses of 1 document are in {path}." in capsys.readouterr().out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, prepared):
    """Of a training that validated on two sequences."""
    folder = tmp_path_factory.mktemp("trained")
    _, trainer = fit(folder, prepared, MHA, max_steps=1, logger=False, limit_val_batches=0, barebones=False)
    trainer.datamodule.hparams["eval_windows"] = 2
    trainer.save_checkpoint(folder / "last.ckpt")
    return str(folder / "last.ckpt")


def words(checkpoint, path, *more):
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--data.eval_batch_size=64"]
    return ["predict", "--ckpt_path", checkpoint, f"--predictions.path={path}", *quiet, *more]


def test_all_documents_are_predicted_whatever_the_training_validated_on(checkpoint, tmp_path, prepared, capsys):
    path = tmp_path / "losses.jsonl"
    finished = run(words(checkpoint, path))
    split = finished.datamodule.manifest.splits["validation"]
    lines = read(path)
    assert [line["document"] for line in lines] == list(range(split.documents))
    assert sum(line["tokens"] for line in lines) == split.tokens - 1
    assert all(line["complete"] is True for line in lines)
    assert f"Losses of {split.documents} documents are in {path}." in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["--data.eval_windows=3", "--trainer.limit_predict_batches=3"])
def test_a_document_that_is_cut_is_marked(checkpoint, tmp_path, prepared, capsys, limit):
    data = TokenDataModule(str(prepared), seq_len=32)
    data.setup("predict")
    lengths = data.evaluation_dataset("validation", name_documents=True).targets_of_documents().tolist()
    path = tmp_path / "losses.jsonl"
    more = ["--data.eval_batch_size=1"]
    whole, left = [], 3 * 32
    while left >= lengths[len(whole)]:
        whole.append(lengths[len(whole)])
        left -= whole[-1]
    run(words(checkpoint, path, limit, *more))
    expected = [(tokens, True) for tokens in whole] + [(left, False)]
    assert [(line["tokens"], line["complete"]) for line in read(path)] == expected
    said = f'Losses of {len(expected)} of {len(lengths)} documents are in {path}; 1 of them is cut and marked "compl'
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"), [("there", "exists already; give another --predictions.path, or --pred"), ("", "is a folder")]
)
def test_nothing_is_overwritten_unasked(checkpoint, tmp_path, capsys, name, message):
    (tmp_path / "there").write_text("mine")
    assert main(words(checkpoint, tmp_path / name, "--data.path=nowhere")) == 1  # before the data is looked at
    assert message in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "mine"
    if name:
        more = ["--predictions.overwrite=true", "--data.eval_windows=3"]
        run(words(checkpoint, tmp_path / name, *more))
        assert read(tmp_path / name)[0]["document"] == 0

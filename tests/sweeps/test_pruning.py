import errno
import json
import os
import socket
import threading

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from lit_t6.sweeps.pruning import VARIABLE, ReportToStudy
from lit_t6.sweeps.records import METRICS, read_metrics
from lit_t6.training import checkpoint_io
from lit_t6.training.callbacks.model_checkpoint import SafeModelCheckpoint
from lit_t6.training.checkpoint_io import SafeCheckpointIO

from ..training.disks import files_no_longer_than
from ..training.runs import fit

METRIC = "val/bits_per_byte"


class Worker(threading.Thread):
    """The other end: answers each report with a word, once it came."""

    def __init__(self, words):
        super().__init__()
        self.mine, self.theirs = socket.socketpair()
        self.words, self.heard, self.steps = list(words), [], []
        self.start()

    def run(self):
        for line in self.mine.makefile("rb"):
            message = json.loads(line)
            if "report" in message:
                self.heard.append((message["report"], message["step"]))
                self.mine.sendall((self.words.pop(0) if self.words else "go").encode() + b"\n")
            else:
                self.steps.append(message["step"])

    def close(self):
        self.theirs.close()
        self.join()
        self.mine.close()


@pytest.fixture
def train(monkeypatch, tmp_path, prepared):
    def run(words=(), unit="steps", every=0, metric=METRIC, prunes=True, callbacks=(), **options):
        worker = Worker(words)
        told = {"descriptor": worker.theirs.fileno(), "metric": metric, "unit": unit, "every": every, "prunes": prunes}
        monkeypatch.setenv(VARIABLE, json.dumps(told))
        options = {"max_steps": 8, "val_check_interval": 2, "limit_val_batches": 1, **options}
        _, trainer = fit(tmp_path, prepared, callbacks=[ReportToStudy(), *callbacks], **options)
        worker.close()
        return worker, trainer

    return run


def test_every_validation_reports_but_the_one_before_the_first_step(train):
    worker, trainer = train()
    assert worker.heard == [(2, 2), (4, 4), (6, 6), (8, 8)]
    assert worker.steps[0] == 1
    assert trainer.global_step == 8


def test_reports_come_at_multiples_of_steps(train):
    assert train(every=3)[0].heard == [(3, 4), (6, 6)]


def test_reports_come_at_multiples_of_tokens(train):
    """4 × 32 tokens a step."""
    assert train(unit="tokens", every=500)[0].heard == [(500, 4), (1000, 8)]


def test_a_figure_of_training_is_reported_at_its_steps(train):
    assert train(every=3, metric="train/loss", limit_val_batches=0)[0].heard == [(3, 3), (6, 6)]


def test_a_trial_that_is_pruned_stops_there(train, tmp_path):
    worker, trainer = train(["go", "prune"])
    assert worker.heard == [(2, 2), (4, 4)]
    assert trainer.global_step == 4
    assert not (tmp_path / "run" / "finished").exists()


def test_at_the_end_nothing_is_pruned_any_more(train):
    assert train(["go", "go", "go", "prune"])[1].global_step == 8


def test_without_a_pruner_nothing_is_reported(train):
    assert train(prunes=False)[0].heard == []


def test_the_last_figures_are_kept(train, tmp_path):
    _, trainer = train(prunes=False)
    found = read_metrics(tmp_path / "run")
    assert (found["step"], found["tokens"], found["ended"]) == (8, 8 * 4 * 32, True)
    assert found["metrics"][METRIC] == float(trainer.callback_metrics[METRIC])
    assert {"train/loss", "val/loss", "perf/tokens_per_sec", "memory/peak_gib"} <= {*found["metrics"]}
    assert found["facts"]["num_parameters"] == sum(p.numel() for p in trainer.lightning_module.parameters())
    assert found["facts"]["num_heads"] == 3
    assert found["facts"]["cache_bytes_per_token"] > 0


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize(("step", "ended"), [(8, True), (6, False)])
def test_a_run_that_was_killed_after_its_last_step_has_its_figures(train, tmp_path, step, ended):
    """It goes on from there, and has nothing to do."""
    saver = SafeModelCheckpoint(save_last=True, save_top_k=0)
    train(prunes=False, callbacks=[saver], plugins=[SafeCheckpointIO()])
    path = tmp_path / "run" / METRICS
    said = {**json.loads(path.read_text()), "step": step, "ended": False, "run": "killed"}
    path.write_text(json.dumps(said))
    _, trainer = train(prunes=False, ckpt_path=tmp_path / "run/checkpoints/last.ckpt")
    assert trainer.global_step == 8
    found = read_metrics(tmp_path / "run")
    assert found == {**said, "ended": ended, "run": None if ended else "killed"}


@pytest.mark.parametrize(
    ("saves", "options", "names"),
    [
        ({"monitor": "val/loss"}, {"val_check_interval": 4}, ["step=4.ckpt", "step=8.ckpt"]),
        ({"save_top_k": 0}, {"limit_val_batches": 0}, ["last.ckpt"]),  # at the end, after all other callbacks
    ],
)
def test_what_could_not_be_saved_is_told_beside_the_figures(train, tmp_path, saves, options, names):
    """A full disk has room for small files."""
    saver = SafeModelCheckpoint(save_last=True, filename="{step}", **saves)
    with files_no_longer_than(100_000):
        train(
            prunes=False,
            callbacks=[saver],
            plugins=[SafeCheckpointIO()],
            logger=TensorBoardLogger(tmp_path, name="", version="run"),
            **options,
        )
    found = read_metrics(tmp_path / "run")
    assert found["ended"]
    assert found["metrics"]["train/loss"] > 0
    assert found["not_saved"] == names


def test_what_is_saved_later_is_not_missing(train, tmp_path):
    saver = SafeModelCheckpoint(save_last=True, save_top_k=0)
    real, full = checkpoint_io.write_atomically, [True, False, False, False]

    def write(content, path, **options):
        if full.pop(0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(content, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_io, "write_atomically", write)
        train(prunes=False, callbacks=[saver], plugins=[SafeCheckpointIO()])
    assert read_metrics(tmp_path / "run")["not_saved"] == []
    assert (tmp_path / "run/checkpoints/last.ckpt").exists()


def test_a_worker_that_sleeps_holds_nobody_up(train, monkeypatch):
    monkeypatch.setattr("lit_t6.sweeps.pruning._ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(Worker, "run", lambda self: self.mine.recv(1 << 20))
    assert train()[1].global_step == 8


def test_without_a_worker_it_does_nothing(monkeypatch, tmp_path, prepared):
    monkeypatch.delenv(VARIABLE, raising=False)
    fit(tmp_path, prepared, callbacks=[ReportToStudy()])
    assert read_metrics(tmp_path / "run") is None

"""Several processes on a CPU, started as a person starts them."""

import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .training.recording import sequences_by_step

pytestmark = pytest.mark.slow


def curves(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def fit(prepared, tmp_path, name, *words):
    command = [sys.executable, "cli.py", "fit", "--config=configs/quickstart.yaml", f"--data.path={prepared}"]
    command += ["--model.vocab_size=400", "--model.max_seq_len=64", "--trainer.accelerator=cpu"]
    command += ["--trainer.max_steps=20", "--trainer.val_check_interval=10", "--trainer.log_every_n_steps=1"]
    command += [f"--trainer.logger.init_args.save_dir={tmp_path}", f"--trainer.logger.init_args.name={name}"]
    command += ["--trainer.enable_progress_bar=false", "--model.optimizer.warmup_steps=5", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    return curves(tmp_path / name / "version_0")


@pytest.mark.parametrize("mechanism", ["tpa", "mha"])
def test_two_processes_equal_one_with_twice_the_batch(prepared, tmp_path, mechanism):
    config = f"--config=configs/attention/{mechanism}.yaml"
    one = fit(prepared, tmp_path, "one", config, "--data.batch_size=8")
    ddp = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=4"]
    two = fit(prepared, tmp_path, "two", config, *ddp)
    assert len(one["train/loss"]) == 20
    assert one["train/loss"][-1] < one["train/loss"][0] - 1
    for tag in ("train/loss", "val/loss", "val/bits_per_byte"):
        assert two[tag] == pytest.approx(one[tag], abs=1e-5), tag
    assert two["progress/tokens"] == one["progress/tokens"]


def test_global_batch_stays_what_it_is(prepared, tmp_path):
    """One process with two micro-batches a step, two processes with one each."""
    words = ["--data.batch_size=4", "--data.global_batch_size=8"]
    one = fit(prepared, tmp_path, "one", *words, "--trainer.val_check_interval=20")
    two = fit(prepared, tmp_path, "two", *words, "--trainer.devices=2", "--trainer.strategy=ddp")
    assert two["train/loss"] == pytest.approx(one["train/loss"], abs=1e-5)


def test_one_rank_then_two_then_one_equal_one_throughout(prepared, tmp_path):
    """The same samples in each step, whatever the ranks; the checkpoint that one leaves, two go on from."""
    words = ["--data.global_batch_size=8", "--model.optimizer.decay_steps=20", "--checkpoint.save_top_k=-1"]
    words += ["--trainer.val_check_interval=5", "--guards.spike_sigma=0"]
    ranks = {1: ["--data.batch_size=4"], 2: ["--data.batch_size=4", "--trainer.devices=2", "--trainer.strategy=ddp"]}

    def recorded(name):
        class_path = "--trainer.callbacks=tests.training.recording.Recorder"
        return [class_path, f"--trainer.callbacks.folder={tmp_path / name / 'sequences'}"]

    straight = fit(prepared, tmp_path, "straight", *words, *ranks[1], *recorded("straight"))
    fit(prepared, tmp_path, "first", *words, *ranks[1], "--trainer.max_steps=5")
    more = []
    for name, number, end in (("second", 2, 15), ("third", 1, 20)):
        before = {"second": "first", "third": "second"}[name]
        last = tmp_path / before / "version_0" / "checkpoints" / "last.ckpt"
        steps = [f"--trainer.max_steps={end}", f"--ckpt_path={last}"]
        more.append(fit(prepared, tmp_path, name, *words, *ranks[number], *steps, *recorded(name)))
    second, third = more
    expected = sequences_by_step(tmp_path / "straight" / "sequences")
    assert [len(names) for names in expected.values()] == [8] * 20
    assert len({name for names in expected.values() for name in names}) > 100  # sequences, not one and the same
    got = sequences_by_step(tmp_path / "second" / "sequences") | sequences_by_step(tmp_path / "third" / "sequences")
    assert got == {step: names for step, names in expected.items() if step >= 5}
    assert len(second["train/loss"]) == 10
    assert second["train/loss"] == pytest.approx(straight["train/loss"][5:15], abs=1e-5)
    assert third["train/loss"] == pytest.approx(straight["train/loss"][15:], abs=1e-5)
    assert third["progress/tokens"] == straight["progress/tokens"][15:]
    assert second["val/loss"] == pytest.approx(straight["val/loss"][1:3], abs=1e-5)
    assert third["val/loss"] == pytest.approx(straight["val/loss"][3:], abs=1e-5)


@pytest.mark.parametrize("save_last", ["true", "link"])
def test_ranks_agree_on_a_last_checkpoint_that_is_none_of_the_best(prepared, tmp_path, save_last):
    """The loss falls, and the highest counts as the best: only the first validation is."""
    words = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=4", "--checkpoint.mode=max"]
    fit(prepared, tmp_path, "two", *words, f"--checkpoint.save_last={save_last}", "--trainer.val_check_interval=5")
    folder = tmp_path / "two" / "version_0" / "checkpoints"
    steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in folder.glob("*.ckpt")}
    assert steps == {"step=5.ckpt": 5, "last.ckpt": 20}

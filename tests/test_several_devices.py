"""DDP and FSDP on two ranks of a CPU beside one process, started as a person starts them."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cli
from lit_t6.training import read_checkpoint

pytestmark = pytest.mark.slow

STEPS = 8
TWO = "--trainer.devices=2"
SHARDS = ["--trainer.strategy=lit_t6.training.ShardedStrategy", "--trainer.strategy.state_dict_type=sharded", TWO]
WAYS = {
    "one": [],
    "ddp": ["--trainer.strategy=ddp", TWO],
    "fsdp": ["--trainer.strategy=fsdp", TWO],
    "shards": SHARDS,
}


def words_of(prepared, folder, name, *words):
    return [
        *("cli.py", "fit", "--config=configs/quickstart.yaml", f"--data.path={prepared}", "--model.vocab_size=400"),
        *(
            "--model.max_seq_len=64",
            "--model.num_layers=2",
            "--trainer.accelerator=cpu",
            "--trainer.log_every_n_steps=1",
        ),
        *(f"--trainer.max_steps={STEPS}", "--trainer.val_check_interval=4", "--trainer.enable_progress_bar=false"),
        *(f"--trainer.logger.init_args.save_dir={folder}", f"--trainer.logger.init_args.name={name}"),
        *("--data.batch_size=4", "--data.global_batch_size=8", "--checkpoint.save_top_k=-1", "--samples.max_share=1"),
        *("--samples.max_new_tokens=3", "--model.optimizer.warmup_steps=2", f"--model.optimizer.decay_steps={STEPS}"),
        *words,
    ]


def start(words, environment=None):
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **(environment or {})},
    )


def finish(*processes):
    said = [process.communicate(timeout=150) for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return said


def curves(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def result(folder, name):
    run = folder / name / "version_0"
    return SimpleNamespace(curves=curves(run), checkpoints=run / "checkpoints", folder=run)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def runs(prepared, logs):
    """A whole training each way, of the same global batch."""
    for name, words in WAYS.items():
        finish(start(words_of(prepared, logs, name, *words)))
    return {name: result(logs, name) for name in WAYS}


@pytest.mark.parametrize("name", ["ddp", "fsdp", "shards"])
def test_two_ranks_have_the_losses_of_one_process(runs, name):
    one, two = runs["one"].curves, runs[name].curves
    assert len(one["train/loss"]) == STEPS
    assert one["train/loss"][-1] < one["train/loss"][0] - 0.5
    assert two.keys() == one.keys()
    for tag in ("train/loss", "val/loss", "val/bits_per_byte"):
        assert two[tag] == pytest.approx(one[tag], abs=1e-5), tag
    assert two["optim/grad_norm"] == pytest.approx(one["optim/grad_norm"], rel=1e-4)
    for tag in ("optim/lr", "progress/tokens"):  # the rate and the batch are the configuration's, not the devices'
        assert two[tag] == one[tag], tag
    step_s = [ms / 1000 for ms in two["perf/step_ms"]]
    assert two["perf/tokens_per_sec"] == pytest.approx([8 * 64 / seconds for seconds in step_s], rel=1e-5)


@pytest.mark.parametrize("name", list(WAYS))
def test_only_the_first_rank_writes(runs, name):
    folder = runs[name].folder
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    assert len(list(folder.glob("events*"))) == 1
    saved = {path.name for path in runs[name].checkpoints.glob("*.ckpt")}
    assert saved == {"step=4.ckpt", "step=8.ckpt", "last.ckpt"}
    assert not list(runs[name].checkpoints.glob(".*"))  # nothing half written
    events = EventAccumulator(str(folder)).Reload()
    assert len(events.Tensors("samples/continuation")) == 2


def same(ours, theirs, atol):
    if isinstance(ours, torch.Tensor):
        return ours.shape == theirs.shape and torch.allclose(ours.double(), theirs.double(), rtol=1e-3, atol=atol)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key], atol) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs, [atol] * len(ours)))
    return ours == theirs


def test_shards_become_one_file_that_is_a_checkpoint_as_any_other(runs, logs, capsys):
    shards, output = runs["shards"].checkpoints / "step=8.ckpt", logs / "whole.ckpt"
    assert {path.name for path in shards.iterdir()} == {"meta.pt", "shard-0-of-2.pt", "shard-1-of-2.pt"}
    assert cli.main(["convert", "--from", "shards", str(shards), "--output", str(output)]) == 0
    whole, one = read_checkpoint(output).content, read_checkpoint(runs["one"].checkpoints / "step=8.ckpt").content
    assert whole.keys() == one.keys()
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "hyper_parameters"):
        assert same(whole[part], one[part], atol=1e-4), part
    assert same(whole["optimizer_states"], read_checkpoint(shards).content["optimizer_states"], atol=0)
    words = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    for path in (output, shards):
        capsys.readouterr()
        assert cli.main(["validate", f"--ckpt_path={path}", *words]) == 0
        loss = float(re.search(r"val/loss \W+([\d.]+)", capsys.readouterr().out)[1])
        assert loss == pytest.approx(runs["one"].curves["val/loss"][-1], abs=1e-5)


def by_torchrun(words):
    return [start(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *words])]


def by_slurm(words):
    job = {"SLURM_JOB_ID": "4243", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    return [start(words, job | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}) for rank in "01"]


@pytest.mark.parametrize(
    ("before", "after", "starting"),
    [
        ("one", "shards", lambda words: [start(words)]),
        ("shards", "one", lambda words: [start(words)]),
        ("fsdp", "ddp", by_slurm),
        ("ddp", "fsdp", by_torchrun),
    ],
)
def test_a_checkpoint_goes_on_with_other_ranks(runs, prepared, logs, before, after, starting):
    name = f"{before}-{after}"
    last = runs[before].checkpoints / "step=4.ckpt"
    finish(*starting(words_of(prepared, logs, name, f"--ckpt_path={last}", *WAYS[after])))
    assert [path.name for path in (logs / name).iterdir()] == ["version_0"]
    straight, more = runs["one"].curves, result(logs, name).curves
    assert more["train/loss"] == pytest.approx(straight["train/loss"][4:], abs=1e-5)
    assert more["val/loss"] == pytest.approx(straight["val/loss"][1:], abs=1e-5)
    assert more["progress/tokens"] == straight["progress/tokens"][4:]
    assert more["optim/lr"] == straight["optim/lr"][4:]


def test_the_same_command_finds_its_shards(prepared, logs):
    """Killed after a checkpoint to go on from, its newest one damaged."""
    words = [*SHARDS, "--resume.every_n_steps=2", "--trainer.limit_val_batches=0", "--trainer.max_steps=4"]
    first = words_of(prepared, logs, "again", *words)
    finish(start(first))
    run = result(logs, "again")
    (run.folder / "finished").unlink()
    for path in (run.checkpoints / "last.ckpt", run.checkpoints / "resume" / "step=4.ckpt"):
        (path / "shard-1-of-2.pt").unlink(missing_ok=True)
    ((output, errors),) = finish(start(first))
    assert "shard-1-of-2.pt is missing" in errors
    assert "step=2.ckpt" in output + errors
    assert read_checkpoint(run.checkpoints / "resume" / "step=4.ckpt").content["global_step"] == 4


def test_compiled_blocks_that_are_recomputed(runs, prepared, logs):
    words = ["--model.compile=true", "--model.recompute=selective", "--trainer.max_steps=2"]
    caches = {"XDG_CACHE_HOME": str(logs / "cache")}
    finish(start(words_of(prepared, logs, "compiled", *WAYS["fsdp"], *words), caches))
    expected = runs["one"].curves["train/loss"][:2]
    assert result(logs, "compiled").curves["train/loss"] == pytest.approx(expected, abs=1e-5)


def test_accumulating_gradients_exchanges_none(prepared):
    ((output, _),) = finish(*by_torchrun(["tests/training/communication.py", str(prepared)]))
    counted = json.loads(output.partition("COUNTED ")[2].splitlines()[0])
    counts = {(strategy, accumulate): found for strategy, accumulate, found in counted}
    weights = {case: found.pop("weights") for case, found in counts.items()}
    for strategy in ("ddp", "fsdp", "after backward"):
        assert counts[strategy, 4] == counts[strategy, 1]
    assert counts["ddp", 1]["all_reduce"] >= 3
    assert counts["ddp", 1]["coalesced"] == 0
    assert counts["after backward", 1]["coalesced"] == 3
    for accumulate in (1, 4):
        assert weights["after backward", accumulate] == pytest.approx(weights["ddp", accumulate], rel=1e-5, abs=1e-6)
    assert weights["ddp", 1] != pytest.approx(weights["ddp", 4], rel=1e-5, abs=1e-6)
    assert counts["fsdp", 1]["reduce_scatter"] == 3 * 3  # steps, and two blocks and the rest
    assert counts["ddp", 1]["reduce_scatter"] == 0


def test_a_batch_that_the_devices_do_not_divide_is_one_error(prepared, logs):
    process = start(words_of(prepared, logs, "odd", "--trainer.strategy=fsdp", "--trainer.devices=3"))
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    lines = [line for line in errors.splitlines() if "error" in line]
    assert lines == [
        "error: data.global_batch_size=8 is not a multiple of data.batch_size=4 times 3 device(s), 12; change one of "
        "them."
    ]
    assert not (logs / "odd").exists()

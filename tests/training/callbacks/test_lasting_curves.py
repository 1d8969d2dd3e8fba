import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.cli import main
from lit_t6.training import CurvesNotWritten, SafeCheckpointIO
from tests.training.disks import fill, small_disk
from tests.training.runs import fit


class Fills(Callback):
    """Leaves no space on a disk after step 3, and frees it after another."""

    def __init__(self, disk, until):
        self.disk, self.until = disk, until

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            fill(self.disk)
        if trainer.global_step == self.until:
            (self.disk / "filler").unlink()


def train(disk, prepared, policy="warn", until=12):
    options = {"max_steps": 16, "enable_checkpointing": False, "plugins": [SafeCheckpointIO(policy)]}
    return fit(disk, prepared, callbacks=[Fills(disk, until)], **options)


def test_a_full_disk_under_the_curves_costs_neither_training_nor_curves(tmp_path, prepared, capsys):
    straight, _ = fit(tmp_path / "straight", prepared, max_steps=16, enable_checkpointing=False)
    with small_disk(tmp_path / "disk", "1m") as disk:
        module, trainer = train(disk, prepared)
        events = {tag: EventAccumulator(str(disk / "run")).Reload().Scalars(tag) for tag in ("train/loss", "val/loss")}
    assert trainer.global_step == 16
    assert [event.step for event in events["train/loss"]] == list(range(16))
    assert [event.step for event in events["val/loss"]] == [4, 9, 14, 15]
    errors = [line for line in capsys.readouterr().err.splitlines() if "curves" in line]
    assert len(errors) == 2
    assert f"{disk}/run: curves cannot be written from step " in errors[0]
    assert " on: No space left on device. Up to 16 MiB of them are kept in memory until there is space" in errors[0]
    assert "curves are written again" in errors[1]
    for ours, theirs in zip(module.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_disk_that_stays_full_is_told_of_at_the_end(tmp_path, prepared, capsys):
    with small_disk(tmp_path / "disk", "1m") as disk:
        _, trainer = train(disk, prepared, until=None)
    assert trainer.global_step == 16
    first, last = [line for line in capsys.readouterr().err.splitlines() if "curves" in line]
    assert "curves cannot be written" in first
    assert "are lost: No space left on device." in last


def test_it_stops_if_that_is_set(tmp_path, prepared):
    with small_disk(tmp_path / "disk", "1m") as disk:
        told = "disk/run: curves cannot be written: No space left on device. --on_save_error warn would"
        with pytest.raises(CurvesNotWritten, match=told):
            train(disk, prepared, "stop", until=None)


@pytest.mark.parametrize(("policy", "status"), [("warn", 0), ("stop", 1)])
def test_the_command_line_sets_it(options, tmp_path, capsys, monkeypatch, policy, status):
    with small_disk(tmp_path / "disk", "8m") as disk:
        monkeypatch.setattr("lit_t6.training.module.ValidateAtEnd", lambda: Fills(disk, None))
        more = ["--trainer.max_steps=12", "--trainer.val_check_interval=100", f"--on_save_error={policy}"]
        assert main(["fit", *options, *more, f"--trainer.logger.init_args.save_dir={disk}"]) == status
        assert len(list(disk.glob("**/finished"))) == (policy == "warn")
    errors = capsys.readouterr().err
    assert errors.count("curves cannot be written from step") == 1
    assert errors.count("error: ") == status


PROGRAM = """
import resource, sys
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lit_t6.training import CurvesNotWritten, SafeCheckpointIO
from tests.training.runs import fit

class Full(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3 and trainer.is_global_zero:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

options = dict(devices=2, strategy="ddp", enable_checkpointing=False, plugins=[SafeCheckpointIO(sys.argv[3])])
try:
    _, trainer = fit(sys.argv[1], sys.argv[2], callbacks=[Full()], max_steps=9, **options)
    print(f"rank {trainer.global_rank} step {trainer.global_step}\\n", end="")
except CurvesNotWritten as error:
    print(f"stopped: {error}\\n", end="")
if dist.is_initialized():  # threads of gloo that are left at the end of the program may abort it
    dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["warn", "stop"])
def test_ranks_go_on_or_stop_together(tmp_path, prepared, policy):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-W", "ignore", str(tmp_path / "program.py"), str(tmp_path), str(prepared), policy]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    if policy == "warn":
        ended = {line for line in done.stdout.splitlines() if line.startswith("rank")}
        assert ended == {"rank 0 step 9", "rank 1 step 9"}
    else:
        assert done.stdout.count("run: curves cannot be written: File too large. --on_save_error warn") == 2
    assert done.stderr.count("warning: ") == 2  # the second at the end, of what was kept until then

"""Guards on a GPU, which they do not make wait, and over ranks."""

import ast
import math
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lit_t6.training import Guards

from .guarded import Notes, lines, run, same


class Operations(TorchDispatchMode):
    """What is computed while it is entered."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_no_tensor_is_brought_to_the_device_to_average_over_ranks(tmp_path, prepared, monkeypatch):
    """`lift_fresh` and `_local_scalar_dense` are numbers on their way to a GPU and from it, which wait for it."""

    class Two(Guards):
        def inspect(self, optimizer, losses, norm):
            monkeypatch.setattr(type(self._trainer), "world_size", 2)
            with Operations() as operations:
                super().inspect(optimizer, losses, norm)
            monkeypatch.undo()
            self.operations, self.figures = operations.seen, self._pending.figures

    guards = Two()
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda figures: figures.mul_(2))
    run(tmp_path, prepared, guards, (), max_steps=1)
    assert guards.figures[:2].isfinite().all()
    assert [name for name in guards.operations if "lift_fresh" in name or "_local_scalar" in name] == []


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_skips_on_a_gpu(tmp_path, prepared, precision):
    notes = Notes()
    run(tmp_path, prepared, Guards("skip"), {3, 6}, notes=notes, accelerator="gpu", devices=1, precision=precision)
    assert all(same(notes.after[step], notes.after[step - 1]) for step in (3, 6))
    assert not torch.equal(notes.after[8][0], notes.after[6][0])


@pytest.mark.slow
def test_all_ranks_agree(tmp_path, prepared):
    """One rank's loss is not finite: both skip."""
    program = f"""
import sys
sys.path.insert(0, {str(__file__.rpartition("/tests/")[0])!r})
import math, torch
from lit_t6 import LitT6, TokenDataModule
from lit_t6.training import Guards, OptimizerConfig
from tests.training.runs import SMALL, make_trainer
class Ill(LitT6):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.trainer.global_step == 2 and self.trainer.global_rank == 1:
            self._step_losses[-1] = loss.detach() * math.nan  # the gradient stays finite
        return loss
    def on_train_batch_end(self, *_):
        guards._settle()
        weights.append(torch.cat([p.detach().flatten() for p in self.parameters()]))
weights, guards = [], Guards("skip")
torch.manual_seed(0)
trainer = make_trainer({str(tmp_path)!r}, max_steps=5, devices=2, strategy="ddp", callbacks=[guards])
trainer.fit(Ill(SMALL, OptimizerConfig(lr=1e-2)), TokenDataModule({str(prepared)!r}, 2, num_workers=0))
total = sum(p.double().sum().item() for p in trainer.lightning_module.parameters())
moved = [not torch.equal(a, b) for a, b in zip(weights, weights[1:])]  # by steps 2 to 5
skipped = guards.state_dict()["skipped"]
with open(f"{tmp_path}/rank{{trainer.global_rank}}", "w") as file:
    file.write(str((total, skipped, moved)))
"""
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (ast.literal_eval((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first[1:] == (1, [True, False, True, True])  # by steps 2 to 5: the third was skipped, and no other
    (line,) = lines(tmp_path)
    assert line["samples"] == [[[8, 9]], [[10, 11]]]
    assert math.isnan(line["losses"][1][0])
    assert math.isfinite(line["losses"][0][0])

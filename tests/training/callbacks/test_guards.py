import ast
import json
import math
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

from lit_t6 import LitT6, TokenDataModule
from lit_t6.training import Guards, OptimizerConfig, SafeCheckpointIO, SaveForResume
from lit_t6.training.callbacks.step_notes import StepNotes

from ..runs import SMALL, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")


class Ill(LitT6):
    """Its loss is not finite, or its gradient is not, at some steps; in the second batch, where there are two."""

    at, what = {3}, "loss"

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        accumulate = self.trainer.accumulate_grad_batches
        if self.trainer.global_step + 1 in self.at and batch_idx % accumulate == accumulate - 1:
            if self.what == "loss":
                self._step_losses[-1] = loss.detach() * math.nan
                return loss * math.nan
            loss.register_hook(lambda grad: grad * math.inf)
        return loss


class Notes(Callback):
    """Weights, optimizer and schedule after each step, once the guards have spoken."""

    def __init__(self):
        self.after = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        guards = next(c for c in trainer.callbacks if isinstance(c, Guards))
        guards._settle()
        (optimizer,) = trainer.optimizers
        moments = [value.cpu() for state in optimizer.state.values() for value in state.values()]
        self.after[trainer.global_step] = (
            torch.cat([p.detach().flatten() for p in pl_module.parameters()]),
            torch.cat([m.detach().flatten() for m in moments]) if moments else torch.zeros(0),
            trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            optimizer.param_groups[0]["lr"],
        )


def run(folder, prepared, guards, at=(3,), what="loss", config=None, notes=None, ckpt_path=None, **options):
    torch.manual_seed(0)
    module = Ill(SMALL, config or OptimizerConfig(lr=1e-2, warmup_steps=4))
    module.at, module.what = set(at), what
    callbacks = [guards, *([notes] if notes else []), *options.pop("callbacks", [])]
    trainer = make_trainer(folder, **{"max_steps": 8, "val_check_interval": 100, **options}, callbacks=callbacks)
    data = TokenDataModule(str(prepared), 4, num_workers=0)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module, trainer


def lines(folder):
    return [json.loads(line) for line in (folder / "run" / "guards.jsonl").read_text().splitlines()]


def same(a, b):
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2:] == b[2:]


class Unfused(OptimizerConfig):
    def build(self, parameters, *, fused=True):
        return super().build(parameters, fused=False)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("kind", [OptimizerConfig, Unfused])
@pytest.mark.parametrize("clip", [1.0, None])
def test_a_skipped_step_leaves_everything_as_it_was(tmp_path, prepared, what, kind, clip):
    notes = Notes()
    guards = Guards("skip")
    config = kind(lr=1e-2, warmup_steps=4)
    _, trainer = run(tmp_path, prepared, guards, {3, 4, 6}, what, config, notes, gradient_clip_val=clip)
    assert trainer.global_step == 8
    for step in range(2, 9):
        assert same(notes.after[step], notes.after[step - 1]) == (step in {3, 4, 6}), step
    assert notes.after[8][0].isfinite().all()
    assert [(line["step"], line["what"]) for line in lines(tmp_path)] == [
        (3, "skipped"),
        (4, "skipped"),
        (6, "skipped"),
    ]
    assert lines(tmp_path)[0]["samples"] == [[[8, 11]]]
    windows = trainer.datamodule.windows_of_samples([8, 9, 10, 11])
    assert lines(tmp_path)[0]["windows"] == windows
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    skipped = [(event.step, event.value) for event in events.Scalars("guards/skipped_steps")]
    assert skipped == [(2, 1.0), (3, 2.0), (5, 3.0)]


def test_stop_names_the_step_the_samples_and_the_checkpoint(tmp_path, prepared):
    saver = ModelCheckpoint(tmp_path / "c", every_n_train_steps=1, save_last=True)
    options = {"callbacks": [saver], "accumulate_grad_batches": 2}
    with pytest.raises(
        ValueError, match=r"step 3: loss nan, gradient norm nan, on samples 16 … 23. The step was not"
    ) as e:
        run(tmp_path, prepared, Guards(), **options)
    assert f"Go on with --ckpt_path {tmp_path / 'c' / 'last.ckpt'} and a smaller --model.optimizer.lr" in str(e.value)
    (line,) = lines(tmp_path)
    assert line["what"] == "stopped"
    assert line["samples"] == [[[16, 19], [20, 23]]]
    assert math.isfinite(line["losses"][0][0])
    assert math.isnan(line["losses"][0][1])
    assert torch.load(tmp_path / "c" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_advice_where_there_is_no_checkpoint(tmp_path, prepared):
    with pytest.raises(ValueError, match="step 3: ") as e:
        run(tmp_path, prepared, Guards())
    assert str(e.value) == (
        f"step 3: loss nan, gradient norm nan, on samples 8 … 11. The step was not taken. Details are in "
        f"{tmp_path / 'run' / 'guards.jsonl'}. Look at these samples first. No checkpoint is there yet: start again "
        f"with a smaller --model.optimizer.lr, more warmup_steps, or --guards.on_nonfinite skip."
    )


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_stop_names_the_newest_whole_checkpoint_of_this_run(tmp_path, prepared):
    """Also one that SaveForResume wrote; no damaged one, and none of a later step, which an earlier course left."""
    folder = tmp_path / "run" / "checkpoints"
    options = {"callbacks": [SaveForResume(every_n_steps=1, keep=5)], "plugins": [SafeCheckpointIO()]}
    run(tmp_path, prepared, Guards(), (), max_steps=4, **options)
    (folder / "resume" / "step=4.ckpt").rename(folder / "step=4.ckpt")
    newest = folder / "resume" / "step=2.ckpt"
    damage = bytearray(newest.read_bytes())
    damage[len(damage) // 2] ^= 1

    class Damages(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                newest.write_bytes(damage)

    options["callbacks"] = [Damages()]
    with pytest.raises(ValueError, match="step 3: ") as e:
        run(tmp_path, prepared, Guards(), ckpt_path=folder / "resume" / "step=1.ckpt", **options)
    assert f"Go on with --ckpt_path {folder / 'resume' / 'step=3.ckpt'} and" in str(e.value)
    (folder / "resume" / "step=3.ckpt").unlink()
    with pytest.raises(ValueError, match="step 3: ") as e:
        run(tmp_path, prepared, Guards(), ckpt_path=folder / "resume" / "step=1.ckpt", **options)
    assert f"Go on with --ckpt_path {folder / 'resume' / 'step=1.ckpt'} and" in str(e.value)


def test_a_weight_that_is_poisoned_stops_a_run(tmp_path, prepared):
    class Poison(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 4:
                next(pl_module.parameters()).data[:] = math.inf

    with pytest.raises(ValueError, match="step 5: loss nan"):
        run(tmp_path, prepared, Guards(), at=(), callbacks=[Poison()])


def test_too_many_skips_in_a_row_stop(tmp_path, prepared):
    with pytest.raises(ValueError, match=r"step 7: .*3 steps in a row were not finite .guards.max_skips=2"):
        run(tmp_path, prepared, Guards("skip", max_skips=2), {1, 2, 5, 6, 7})


def test_counts_go_on_and_lines_are_written_once_when_resumed(tmp_path, prepared):
    saver = ModelCheckpoint(tmp_path / "c", "{step}", every_n_train_steps=1, save_top_k=-1)
    straight = Guards("skip", spike_sigma=2)
    notes, again = Notes(), Notes()
    run(tmp_path, prepared, straight, {2, 3, 6}, notes=notes, callbacks=[saver])
    before = lines(tmp_path)
    resumed = Guards("skip", spike_sigma=2)
    run(tmp_path, prepared, resumed, {2, 3, 6}, notes=again, ckpt_path=tmp_path / "c" / "step=3.ckpt")
    assert resumed.state_dict() == straight.state_dict()
    assert resumed.state_dict()["skipped"] == 3
    assert lines(tmp_path) == before
    assert same(again.after[8], notes.after[8])


def test_spikes_are_noted_and_nothing_else(tmp_path, prepared):
    class Leap(LitT6):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if self.trainer.global_step + 1 == 27:
                self._step_losses[-1] = loss.detach() + 5
            return loss

    results = []
    for sigma in (6, 0):
        torch.manual_seed(0)
        module = Leap(SMALL, OptimizerConfig(lr=1e-3, warmup_steps=2))
        trainer = make_trainer(
            tmp_path / str(sigma), max_steps=30, val_check_interval=100, callbacks=[Guards(spike_sigma=sigma)]
        )
        trainer.fit(module, TokenDataModule(str(prepared), 4, num_workers=0))
        results.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    (line,) = lines(tmp_path / "6")
    assert (line["step"], line["what"], line["samples"]) == (27, "spike", [[[104, 107]]])
    assert line["loss"] > line["mean"] + 6 * line["deviation"]
    assert torch.equal(*results)
    assert not (tmp_path / "0" / "run" / "guards.jsonl").exists()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="on_nonfinite must be 'stop' or 'skip', got 'go'"):
        Guards("go")
    with pytest.raises(ValueError, match="max_skips >= 0"):
        Guards(max_skips=-1)
    with pytest.raises(ValueError, match="max_overflows >= 0"):
        Guards(max_overflows=-1)


def float16(scale=2.0**16):
    """Precision 16-mixed as Lightning has it on GPUs; on CPUs it takes bfloat16 instead, unless it is given this."""
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))


def test_an_overflow_of_float16_is_noted_and_skipped_with_its_schedule(tmp_path, prepared):
    notes, precision = Notes(), float16(1024.0)
    _, trainer = run(tmp_path, prepared, Guards(), {3, 4, 6}, "gradient", notes=notes, plugins=[precision])
    assert trainer.global_step == 8
    for step in range(2, 9):
        assert same(notes.after[step], notes.after[step - 1]) == (step in {3, 4, 6}), step
    assert [(line["step"], line["what"]) for line in lines(tmp_path)] == [(n, "overflow") for n in (3, 4, 6)]
    assert [line["scale"] for line in lines(tmp_path)] == [512.0, 256.0, 128.0]
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("guards/overflows")] == [(2, 1.0), (3, 2.0), (5, 3.0)]


def test_a_scale_that_falls_without_end_stops(tmp_path, prepared):
    guards, precision = Guards("skip", max_overflows=3), float16(16.0)
    told = r"step 7: loss [\d.]+, infinite gradient, on samples 24 … 27; 4 steps in a row were not taken"
    with pytest.raises(ValueError, match=told) as e:
        run(tmp_path, prepared, guards, {2, 4, 5, 6, 7}, "gradient", plugins=[precision])
    assert "(guards.max_overflows=3), the scale of the loss fell to 0.5. " in str(e.value)
    assert str(e.value).endswith("or --trainer.precision bf16-mixed.")
    assert [line["what"] for line in lines(tmp_path)] == [*["overflow"] * 4, "stopped"]


def test_a_loss_that_is_not_finite_in_float16_is_no_overflow(tmp_path, prepared):
    with pytest.raises(ValueError, match="step 3: loss nan, gradient norm nan"):
        run(tmp_path, prepared, Guards(), {3}, plugins=[float16(1024.0)])


def test_notes_that_cannot_be_written_cost_one_warning(tmp_path, prepared, capsys):
    """A file that takes no more bytes: /dev/full is a disk that is."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "guards.jsonl").symlink_to("/dev/full")
    run(tmp_path, prepared, Guards("skip"), {3, 6})
    errors = capsys.readouterr().err
    assert errors.count("guards.jsonl: notes about steps are lost: No space left on device. Training goes on.") == 1


SHORT = """
import resource, signal, sys
from pathlib import Path
from lit_t6.training.callbacks.step_notes import StepNotes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
notes = StepNotes(Path(sys.argv[1]))
for step in (1, 2):
    notes.add({"step": step})
size = notes.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, size + 5))
notes.add({"step": 3})
resource.setrlimit(resource.RLIMIT_FSIZE, (3, size + 5))
notes.forget_after(1)
"""


def test_notes_are_whole_lines_whatever_the_disk_takes(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", SHORT, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.count("warning: ") == 1
    assert "guards.jsonl: notes about steps are lost: File too large" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["guards.jsonl"]
    path = tmp_path / "guards.jsonl"
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'  # not half of the third, nor half of the first alone
    path.write_text('{"step": 1}\n{"step"{"step": 2}\n{"st')  # what others left
    StepNotes(tmp_path).forget_after(2)
    assert path.read_text() == '{"step": 1}\n'


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


@pytest.mark.gpu
def test_an_overflow_on_a_gpu(tmp_path, prepared):
    notes, options = Notes(), {"accelerator": "gpu", "devices": 1, "precision": "16-mixed"}
    run(tmp_path, prepared, Guards(), {3, 6}, "gradient", notes=notes, **options)
    assert [(line["step"], line["what"]) for line in lines(tmp_path) if line["step"] in (3, 6)] == [
        (3, "overflow"),
        (6, "overflow"),
    ]
    assert all(same(notes.after[step], notes.after[step - 1]) for step in (3, 6))


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

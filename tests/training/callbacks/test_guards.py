import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6 import LitT6, TokenDataModule
from lit_t6.training import Guards, OptimizerConfig

from ..runs import SMALL, make_trainer
from .guarded import Notes, lines, run, same

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")


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

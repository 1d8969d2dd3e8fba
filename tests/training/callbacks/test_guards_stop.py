"""Guards that stop a training say where, and what to go on with."""

import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lit_t6.training import Guards, SafeCheckpointIO, SaveForResume

from .guarded import lines, run

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")


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

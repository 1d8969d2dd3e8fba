import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6 import LitT6, T6Config, TokenDataModule
from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.training import OptimizerConfig, read_checkpoint

from ..model.captured import capture_blocks
from .runs import SMALL, fit, make_trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory, prepared):
    """A short training, its folder and its checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    module, trainer = fit(folder, prepared)
    trainer.save_checkpoint(folder / "last.ckpt")
    return module, trainer, folder


def test_python_api_gives_the_same_validation_loss_again(run, prepared):
    _, trainer, folder = run
    logged = trainer.callback_metrics["val/loss"].item()
    loaded = LitT6.load_from_checkpoint(folder / "last.ckpt", weights_only=True)
    data = TokenDataModule(str(prepared), 4, num_workers=0)
    (figures,) = make_trainer(folder, logger=False).validate(loaded, data, verbose=False)
    assert figures["val/loss"] == pytest.approx(logged, abs=1e-6)
    assert figures["val/perplexity"] == pytest.approx(math.exp(logged), rel=1e-5)
    by_other_batches = make_trainer(folder, logger=False).validate(
        loaded, TokenDataModule(str(prepared), 7, num_workers=0), verbose=False
    )
    assert by_other_batches[0]["val/loss"] == pytest.approx(logged, abs=1e-5)
    (tested,) = make_trainer(folder, logger=False).test(loaded, data, verbose=False)
    assert set(tested) == {"test/loss", "test/perplexity", "test/bits_per_byte"}


def test_validation_loss_is_the_mean_over_all_tokens(run, prepared):
    module, trainer, _ = run
    dataset = TokenDataModule(str(prepared), seq_len=32)
    dataset.setup("validate")
    windows = dataset.evaluation_dataset("validation")
    with torch.no_grad():
        batches = [windows[[n]] for n in range(len(windows))]
        nats = sum(module.model.loss(b["tokens"], b["targets"], reduction="sum").item() for b in batches)
    split = dataset.manifest.splits["validation"]
    assert sum((b["targets"] >= 0).sum().item() for b in batches) == split.tokens - 1
    assert sum(b["target_bytes"].sum().item() for b in batches) == split.bytes
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(nats / (split.tokens - 1), rel=1e-6)
    bits = nats / math.log(2) / split.bytes
    assert trainer.callback_metrics["val/bits_per_byte"].item() == pytest.approx(bits, rel=1e-6)


def test_tags_of_tensorboard(run):
    _, _, folder = run
    events = EventAccumulator(str(folder / "run")).Reload()
    tags = set(events.Tags()["scalars"])
    expected = "train/loss val/loss val/perplexity val/bits_per_byte perf/tokens_per_sec perf/step_ms optim/lr"
    assert tags >= {*expected.split(), "optim/grad_norm", "progress/tokens", "cache/bytes_per_token"}
    assert [event.step for event in events.Scalars("val/loss")] == [4, 6]  # after steps 5 and 7, counted from 0
    tokens = [event.value for event in events.Scalars("progress/tokens")]
    assert tokens == [4 * 32 * step for step in range(1, 8)]
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses[-1] < losses[0] - 0.5
    config = OptimizerConfig(lr=1e-2, warmup_steps=2)
    rates = [event.value for event in events.Scalars("optim/lr")]
    assert rates == pytest.approx([config.rate(step, 7) for step in range(7)], rel=1e-5)
    (cache,) = events.Scalars("cache/bytes_per_token")
    assert cache.value == 4 * (3 + 8) * 2 * 4  # ranks 2 + 2, layers 2, float32


def test_every_logged_point_is_of_its_step(tmp_path, prepared):
    fit(tmp_path, prepared, log_every_n_steps=4, max_steps=7, val_check_interval=100)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    for tag in ("train/loss", "progress/tokens", "optim/lr"):
        assert [event.step for event in events.Scalars(tag)] == [3, 6], tag
    assert [event.value for event in events.Scalars("progress/tokens")] == [4 * 32 * 4, 4 * 32 * 7]
    first, last = (event.value for event in events.Scalars("train/loss"))
    assert first != last


def test_trains_in_bfloat16(tmp_path, prepared):
    module, trainer = fit(tmp_path, prepared, precision="bf16-mixed")
    assert trainer.callback_metrics["val/loss"] < math.log(400) - 0.5
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())


def test_accumulation_gives_the_step_of_the_whole_batch(tmp_path, prepared):
    def last_weights(batch_size, accumulate):
        options = {"accumulate_grad_batches": accumulate, "precision": "64-true", "max_steps": 3}
        module, _ = fit(tmp_path / str(batch_size), prepared, batch_size=batch_size, **options)
        return torch.cat([p.flatten() for p in module.parameters()]).detach()

    torch.testing.assert_close(last_weights(2, 2), last_weights(4, 1))


def test_resumed_run_equals_the_straight_one(tmp_path, prepared):
    options = {"enable_checkpointing": False, "logger": False}
    straight, _ = fit(tmp_path, prepared, max_steps=6, **options)
    torch.manual_seed(0)
    # Half the way with the schedule of the whole.
    half = LitT6(SMALL, OptimizerConfig(lr=1e-2, warmup_steps=2, decay_steps=6))
    trainer = make_trainer(tmp_path, max_steps=3, **options)
    trainer.fit(half, TokenDataModule(str(prepared), 4, num_workers=0))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fit(tmp_path, prepared, ckpt_path=tmp_path / "half.ckpt", max_steps=6, **options)
    for (name, a), b in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_weights_of_another_model_are_refused(run, tmp_path, prepared):
    _, _, folder = run
    other = T6Config(vocab_size=400, max_seq_len=32, d_model=32, num_layers=2, attention=MultiHeadConfig(4, None, 8))
    with pytest.raises(
        ValueError, match=r"another model .*class_path is lit_t6.attention.TPAConfig there, .*MultiHead.* here"
    ):
        fit(tmp_path, prepared, other, ckpt_path=folder / "last.ckpt")


def test_checkpoint_holds_primitives_only_and_the_solved_head_count(tmp_path, prepared):
    config = T6Config(vocab_size=400, max_seq_len=32, d_model=64, num_layers=1, attention=TPAConfig(head_dim=8))
    _, trainer = fit(tmp_path, prepared, config, max_steps=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    arguments = checkpoint["hyper_parameters"]["config"]["attention"]["init_args"]
    assert arguments["num_heads"] == config.resolved().attention.num_heads


def test_a_run_bounded_by_epochs_validates_at_its_end(tmp_path, prepared):
    config = T6Config(vocab_size=400, max_seq_len=512, d_model=16, num_layers=1, attention=TPAConfig(2, 4))
    bounds = {"max_steps": -1, "max_epochs": 1, "val_check_interval": 10**6, "num_sanity_val_steps": 0}
    module, trainer = fit(tmp_path, prepared, config, batch_size=64, **bounds)
    assert trainer.global_step == len(trainer.train_dataloader)
    assert "val/loss" in trainer.callback_metrics
    assert module.lr_schedulers().get_last_lr()[0] == pytest.approx(module.optimizer_config.min_lr, rel=0.2)


@pytest.mark.slow
def test_compiled_training_learns(tmp_path, prepared):
    """torch.compile as LitT6 calls it; needs a C++ compiler."""
    torch._dynamo.reset()
    module = LitT6(SMALL, OptimizerConfig(lr=1e-2, warmup_steps=2), compile=True)
    trainer = make_trainer(tmp_path, max_steps=7)
    trainer.fit(module, TokenDataModule(str(prepared), 4, num_workers=0))
    assert trainer.callback_metrics["val/loss"] < math.log(400) - 0.3
    assert not any("_orig_mod" in name for name in module.state_dict())


def test_a_run_without_an_end_is_refused(tmp_path, prepared):
    with pytest.raises(ValueError, match="does not know where to end: set trainer.max_steps"):
        fit(tmp_path, prepared, max_steps=-1, max_epochs=-1)


def test_compiled_training_takes_the_same_steps(tmp_path, prepared, monkeypatch):
    capture_blocks(monkeypatch)  # the slow test has them compiled
    results = []
    for compile in (False, True):
        torch.manual_seed(0)
        module = LitT6(SMALL, OptimizerConfig(lr=1e-2, warmup_steps=2), compile=compile)
        trainer = make_trainer(tmp_path / str(compile), max_steps=2, precision="64-true")
        trainer.fit(module, TokenDataModule(str(prepared), 4, num_workers=0))
        results.append(torch.cat([p.flatten() for p in module.parameters()]).detach())
        assert not any("_orig_mod" in name for name in module.state_dict())
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_training_that_recomputes_takes_the_same_steps(tmp_path, prepared, recompute):
    weights = []
    for how in ("none", recompute):
        torch.manual_seed(0)
        module = LitT6(SMALL, OptimizerConfig(lr=1e-2, warmup_steps=2), recompute=how)
        trainer = make_trainer(tmp_path / how, max_steps=2)
        trainer.fit(module, TokenDataModule(str(prepared), 4, num_workers=0))
        weights.append(torch.cat([p.flatten() for p in module.parameters()]).detach())
    assert torch.equal(*weights)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert LitT6.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).hparams["recompute"] == recompute
    assert read_checkpoint(tmp_path / "a.ckpt").options()["model"]["recompute"] == recompute


def test_clocks_of_several_devices_do_not_say_when_to_validate(tmp_path):
    module = LitT6(SMALL)
    options = {"devices": 2, "strategy": "ddp", "val_check_interval": "00:00:00:30"}
    module.trainer = make_trainer(tmp_path, **options)
    with pytest.raises(ValueError, match=r"val_check_interval: a time \(30 s\) with 2 devices.*Give a number of steps"):
        module.setup("fit")
    module.setup("validate")
    module.trainer = make_trainer(tmp_path, **{**options, "val_check_interval": 30})
    module.setup("fit")


def test_the_clock_of_one_device_may(tmp_path, prepared):
    trainer = make_trainer(tmp_path, max_steps=2, val_check_interval="00:00:00:01", limit_val_batches=1)
    trainer.fit(LitT6(SMALL), TokenDataModule(str(prepared), 2, global_batch_size=4, num_workers=0))
    assert trainer.global_step == 2
    assert "val/loss" in trainer.callback_metrics  # at the end, whatever the clock says

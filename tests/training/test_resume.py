"""A resumed training gives, bit by bit, what the undisturbed one gives."""

import random

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6 import LitT6, T6Config, TokenDataModule
from lit_t6.attention import TPAConfig
from lit_t6.training import OptimizerConfig, SampleWriter

from .runs import MHA, SMALL

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path."),  # a resumed run here saves nothing
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # short epochs
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes"),
]

TINY = T6Config(vocab_size=400, max_seq_len=16, d_model=16, num_layers=1, attention=TPAConfig(2, 4), multiple_of=8)
TIMED = ("perf/", "memory/")


class Noisy(LitT6):
    """Draws random numbers in every batch, from all generators, and notes what it was trained on."""

    def training_step(self, batch, batch_idx):
        noise = torch.rand(()).item() + np.random.rand() + random.random() + random.gauss(0, 1)
        data = self.trainer.datamodule
        self.trained = [*getattr(self, "trained", []), (self.trainer.global_step, data.samples_of_step()[0][-1], noise)]
        return super().training_step(batch, batch_idx) * (1 + 0.1 * noise)


def train(folder, prepared, ckpt_path=None, *, optimizer=None, data=None, save=True, model=Noisy, **options):
    L.seed_everything(3, verbose=False)
    module = model(TINY, optimizer or OptimizerConfig(lr=1e-2, warmup_steps=2, decay_steps=12))
    kinds = [
        ("step", {"every_n_train_steps": 1}),
        ("val", {"every_n_epochs": 1, "monitor": "val/loss"}),
        ("end", {"every_n_epochs": 1, "save_on_train_epoch_end": True}),
    ]
    always = {"save_top_k": -1, "auto_insert_metric_name": False}
    savers = [ModelCheckpoint(folder / "c", kind + "-{step}", **always, **how) for kind, how in kinds]
    savers = save if isinstance(save, list) else savers if save else []
    logger = TensorBoardLogger(folder, "", "run", default_hp_metric=False)
    options = {
        "max_steps": 12,
        "val_check_interval": 5,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 2,
        "limit_train_batches": 7,  # an epoch
        "log_every_n_steps": 1,
        "gradient_clip_val": 1.0,
        "accelerator": "cpu",
        "enable_checkpointing": bool(savers),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **options,
    }
    callbacks = [SampleWriter(max_new_tokens=0), *options.pop("callbacks", []), *savers]
    trainer = L.Trainer(default_root_dir=folder, logger=logger, callbacks=callbacks, **options)
    datamodule = TokenDataModule(str(prepared), **{"batch_size": 2, "num_workers": 0, **(data or {})})
    torch.manual_seed(3 if ckpt_path is None else 4)  # a resumed run needs no luck
    trainer.fit(module, datamodule, ckpt_path=ckpt_path, weights_only=True)
    return module, trainer


def state_of(trainer):
    """All that goes on: weights, optimizer, schedule, counters, random numbers, best so far."""
    trainer.save_checkpoint(trainer.default_root_dir + "/final.ckpt")
    content = torch.load(trainer.default_root_dir + "/final.ckpt", weights_only=True)
    kept = {name: content[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")}
    callbacks = {k: v for k, v in content["callbacks"].items() if not k.startswith("ModelCheckpoint")}
    for name in ("savers", "folder"):  # of the trainer, not of the training
        del callbacks["ExactResume"][name]
    kept["scaler"] = content.get("MixedPrecision")
    return kept | {"callbacks": callbacks, "samples": content["TokenDataModule"]["samples_seen"]}


def differences(a, b, path=""):
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for key in a.keys() | b.keys() for d in differences(a.get(key), b.get(key), f"{path}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for n, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}/{n}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
    return [] if same else [(path, a, b)]


def curves(folder):
    events = EventAccumulator(str(folder / "run"), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith((*TIMED, "cache/"))]
    return {(tag, event.step): event.value for tag in tags for event in events.Scalars(tag)}


def check(straight, folder, path, prepared, **options):
    """Resume from one of the checkpoints of a run and compare with it."""
    module, trainer = straight
    resumed, again = train(folder, prepared, path, save=False, **options)
    step = torch.load(path, weights_only=True)["global_step"]
    assert again.global_step == trainer.global_step
    trained = [entry for entry in module.trained if entry[0] >= step]
    assert getattr(resumed, "trained", []) == trained
    final = state_of(again)
    if not trained and not again.fit_loop.epoch_loop.val_loop._has_run:  # of the end: nothing was left to do
        final["callbacks"]["ExactResume"] = module.final["callbacks"]["ExactResume"]
        final["epoch"] = module.final["epoch"]
    assert not differences(module.final, final)
    expected, got = module.curves, curves(folder)
    assert got == {key: expected.get(key) for key in got}
    missing = {key for key in expected if key not in got and key[0].removesuffix("_over_tokens") == key[0]}
    assert all(at < step for _, at in missing), missing


def undisturbed(folder, prepared, **options):
    module, trainer = train(folder, prepared, **options)
    module.final, module.curves = state_of(trainer), curves(folder)
    return module, trainer


CASES = {
    "steps": {},
    "accumulation": {"data": {"global_batch_size": 4}, "limit_train_batches": 8},
    "validation in the middle of a step": {"accumulate_grad_batches": 2, "limit_train_batches": 8, "max_steps": 9},
    "epochs": {"max_steps": -1, "max_epochs": 2, "val_check_interval": 1.0, "check_val_every_n_epoch": 1},
    "validation within epochs": {
        "max_steps": -1,
        "max_epochs": 2,
        "val_check_interval": 3,
        "check_val_every_n_epoch": 1,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_resumed_equals_undisturbed_from_every_checkpoint(tmp_path, prepared, name):
    options = CASES[name]
    straight = undisturbed(tmp_path / "straight", prepared, **options)
    unsaved, _ = train(tmp_path / "unsaved", prepared, save=False, **options)
    assert not differences(dict(unsaved.state_dict()), straight[0].final["state_dict"])  # saving disturbs nothing
    saved = sorted((tmp_path / "straight" / "c").glob("*.ckpt"))
    kinds = {kind: [path for path in saved if path.name.startswith(kind)] for kind in ("step", "val", "end")}
    chosen = random.Random(name).sample(kinds["step"], 3) + kinds["val"] + kinds["end"]
    last = max(kinds["step"], key=lambda path: int(path.stem.split("-")[1]))
    for number, path in enumerate(dict.fromkeys([*chosen, last])):
        check(straight, tmp_path / str(number), path, prepared, **options)


def test_resumed_with_other_numbers_of_loader_workers(tmp_path, prepared):
    straight = undisturbed(tmp_path / "straight", prepared, data={"num_workers": 1})
    for workers in (0, 1, 3):
        path = tmp_path / "straight" / "c" / "step-4.ckpt"
        check(straight, tmp_path / str(workers), path, prepared, data={"num_workers": workers})


def test_resumed_several_times(tmp_path, prepared):
    straight = undisturbed(tmp_path / "straight", prepared)
    path = tmp_path / "straight" / "c" / "step-2.ckpt"
    for step in (3, 5, 8):  # each goes on from a checkpoint of the one before
        train(tmp_path / str(step), prepared, path)
        path = tmp_path / str(step) / "c" / f"step-{step}.ckpt"
        check(straight, tmp_path / f"from {step}", path, prepared)


class Unfused(OptimizerConfig):
    def build(self, parameters, *, fused=True):
        return super().build(parameters, fused=False)


SETTINGS = {
    "32-true": {},
    "64-true": {"precision": "64-true"},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-true": {"precision": "bf16-true"},
    "not fused": {"optimizer": Unfused(lr=1e-2, warmup_steps=2, decay_steps=10)},
    "no warm-up": {"optimizer": OptimizerConfig(lr=1e-2, warmup_steps=0, decay_steps=7, weight_decay=0)},
    "by value": {"gradient_clip_algorithm": "value", "gradient_clip_val": 0.01},
    "no clipping": {"gradient_clip_val": None},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_stopped_at_5_and_resumed_equals_10_straight(tmp_path, prepared, name):
    options = {"optimizer": OptimizerConfig(lr=1e-2, warmup_steps=2, decay_steps=10), **SETTINGS[name]}
    straight, trainer = train(tmp_path / "10", prepared, save=False, **options, max_steps=10)
    _, half = train(tmp_path / "5", prepared, save=False, **options, max_steps=5)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, again = train(tmp_path / "rest", prepared, tmp_path / "half.ckpt", save=False, **options, max_steps=10)
    assert straight.trained[5:] == resumed.trained
    assert not differences(state_of(trainer), state_of(again))


@pytest.mark.gpu
@pytest.mark.parametrize("mechanism", ["T6", "MHA"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_resumed_on_a_gpu_with_deterministic_kernels(tmp_path, prepared, precision, mechanism, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setitem(globals(), "TINY", {"T6": SMALL, "MHA": MHA}[mechanism])
    options = {"precision": precision, "accelerator": "gpu", "devices": 1, "deterministic": True}
    try:
        straight = undisturbed(tmp_path / "straight", prepared, **options)
        for name in ("step-3", "step-8", "val-5"):
            check(straight, tmp_path / name, tmp_path / "straight" / "c" / f"{name}.ckpt", prepared, **options)
        assert (straight[0].final["scaler"] is not None) == (precision == "16-mixed")
    finally:
        torch.use_deterministic_algorithms(False)

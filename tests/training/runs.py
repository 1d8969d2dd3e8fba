"""A short training from Python, for tests of what it leaves behind."""

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lit_t6 import LitT6, T6Config, TokenDataModule
from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.training import OptimizerConfig

SMALL = T6Config(vocab_size=400, max_seq_len=32, d_model=32, num_layers=2, attention=TPAConfig(3, 8), multiple_of=8)
MHA = T6Config(
    vocab_size=400, max_seq_len=32, d_model=32, num_layers=2, attention=MultiHeadConfig(4, None, 8), multiple_of=8
)


def make_trainer(tmp_path, **options):
    options = {
        "max_steps": 7,
        "val_check_interval": 5,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
        "gradient_clip_val": 1.0,
        "logger": TensorBoardLogger(tmp_path, name="", version="run", default_hp_metric=False),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        **options,
    }
    return L.Trainer(default_root_dir=tmp_path, **options)


def fit(tmp_path, prepared, config=SMALL, ckpt_path=None, batch_size=4, **options):
    torch.manual_seed(0)
    module = LitT6(config, OptimizerConfig(lr=1e-2, warmup_steps=2))
    trainer = make_trainer(tmp_path, **options)
    trainer.fit(module, TokenDataModule(str(prepared), batch_size, num_workers=0), ckpt_path=ckpt_path)
    return module, trainer

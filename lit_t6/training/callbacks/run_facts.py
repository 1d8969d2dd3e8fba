"""The facts of a run, for people: what is trained, on what, and where the log goes."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from lit_t6.attention import attention_budget, is_unequal
from lit_t6.data import TokenDataModule
from lit_t6.model import T6Config
from lit_t6.training.callbacks.throughput import cache_bytes_per_token
from lit_t6.training.messages import counted
from lit_t6.training.places import is_rehearsal
from lit_t6.training.sharded import ShardedStrategy


def run_facts(trainer: L.Trainer, config: T6Config) -> dict[str, str]:
    """The facts of a run that is set up, by name, in words.

    Args:
        trainer: attached to a model; its data module, if it is ours, is described too.
        config: of the model, its head count known.
    """
    attention = config.attention
    heads = f"{counted(attention.heads(), 'head')} of size {attention.head_dim}"
    weights = attention.num_parameters(config.d_model)
    share = weights / attention_budget(config.d_model)
    of_budget = f" ({share:.2f} of 4·d_model²)" if is_unequal(share) else ""
    layers = counted(config.num_layers, "layer")
    facts = {
        "model": f"T6, {config.num_parameters():,} parameters: {layers}, width {config.d_model}",
        "attention": f"{attention.label}, {heads}; {weights:,} weights a layer{of_budget}",
        "cache": f"{cache_bytes_per_token(config, str(trainer.precision)):,} bytes a token, over all layers",
        "backend": attention.backend,
        **_ways_of_computing(trainer),
        "device": f"{_devices(trainer)}{_strategy(trainer)}, precision {trainer.precision}",
    }
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, TokenDataModule):
        splits = ", ".join(f"{split.tokens:,} {name}" for name, split in data.manifest.splits.items())
        facts["data"] = f"{data.path}: tokens {splits}; vocabulary of {data.manifest.vocab_size:,}"
        seq_len = data.seq_len or config.max_seq_len
        sequences = data.sequences_per_step
        tokens = sequences * seq_len
        accumulated = f" ({trainer.accumulate_grad_batches} batches)" if trainer.accumulate_grad_batches > 1 else ""
        facts["step"] = f"{sequences} sequences of {seq_len} = {tokens:,} tokens{accumulated}"
        steps = trainer.max_steps if trainer.max_steps > 0 else math.inf
        if steps < math.inf:
            epochs = steps * tokens / data.manifest.splits["train"].tokens
            facts["length"] = f"{steps:,} steps = {steps * tokens:,} tokens, {epochs:.2g} epochs"
        elif trainer.max_epochs is not None and trainer.max_epochs > 0:
            facts["length"] = f"{trainer.max_epochs} epochs"
    facts["log"] = _log(trainer)
    return facts


def figures_of_run(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    """The same in plain values, for programs: parameters and device, and of a model of ours its cache and heads.

    Args:
        trainer: of the run.
        module: that it trains.
    """
    figures: dict[str, Any] = {
        "num_parameters": sum(p.numel() for p in module.parameters()),
        "device": _devices(trainer),
    }
    config = getattr(module, "config", None)
    if config is not None:
        figures["cache_bytes_per_token"] = cache_bytes_per_token(config, str(trainer.precision))
        figures["num_heads"] = config.attention.num_heads
    return figures


def _devices(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    )
    return f"{trainer.world_size} × {name}"


def _strategy(trainer: L.Trainer) -> str:
    """How several devices train together, behind what they are; nothing of a single one."""
    if trainer.world_size == 1 or not isinstance(trainer.strategy, DDPStrategy):
        return ""
    return ", FSDP" if isinstance(trainer.strategy, ShardedStrategy) else ", DDP"


def _ways_of_computing(trainer: L.Trainer) -> dict[str, str]:
    """What of speed and memory is not as by default."""
    settings = trainer.lightning_module.hparams
    facts = {}
    if settings.get("compile"):
        facts["compile"] = "the blocks, with torch.compile, at the first step"
    if settings.get("recompute", "none") != "none":
        facts["recompute"] = f"{settings['recompute']}: less memory, made again on the way back"
    return facts


def advice_for_cpu(trainer: L.Trainer, config: T6Config) -> str:
    """What to tell somebody who is about to train the default model where that takes weeks; empty elsewhere.

    Args:
        trainer: of the training.
        config: of the model, its head count known.
    """
    default = T6Config()
    is_default = (config.d_model, config.num_layers) == (default.d_model, default.num_layers)
    if trainer.strategy.root_device.type != "cpu" or not is_default:
        return ""
    return (
        f"{config.num_parameters():,} parameters ({config.num_layers} layers, width {config.d_model}) on a CPU: this "
        f"is the full-size default, and each of its steps takes minutes here. For a first run use "
        f"--config configs/quickstart.yaml."
    )


def _log(trainer: L.Trainer) -> str:
    folder = trainer.log_dir
    if is_rehearsal(trainer):
        return "none, and no checkpoint: fast_dev_run keeps nothing"
    if trainer.loggers:
        return folder or "none"
    saver = trainer.checkpoint_callback
    saved = isinstance(saver, ModelCheckpoint) and saver.dirpath
    return f"no logger; checkpoints in {saved}" if saved else "no logger"

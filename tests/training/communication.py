"""Counts what two ranks exchange, and what they learn.

torchrun --nproc_per_node 2 tests/training/communication.py PREPARED
"""

import json
import sys
import warnings
from contextlib import nullcontext
from unittest import mock

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from lit_t6 import LitT6, T6Config, TokenDataModule
from lit_t6.attention import TPAConfig
from lit_t6.training import OptimizerConfig, SampleWriter, ShardedStrategy
from lit_t6.training.callbacks import gradient_exchange
from lit_t6.training.callbacks.gradient_exchange import FAST_LINK

STEPS = 3


def exchanges(strategy, accumulate, data):
    """Collectives that sum gradients, of a training of three steps, and the weights that it ends with.

    "after backward" is DDP as over a fast link, which these processes do not have.
    """
    L.seed_everything(1, verbose=False)
    config = T6Config(vocab_size=400, max_seq_len=32, d_model=32, num_layers=2, attention=TPAConfig(head_dim=8))
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        devices=2,
        strategy=ShardedStrategy() if strategy == "fsdp" else "ddp",
        logger=False,
        callbacks=[SampleWriter(max_new_tokens=0)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
    )
    module = LitT6(config, OptimizerConfig(warmup_steps=1))
    loader = TokenDataModule(data, batch_size=2, global_batch_size=4 * accumulate, num_workers=0)
    fast = mock.patch.object(gradient_exchange, "exchange_rate", return_value=2 * FAST_LINK)
    with (
        fast if strategy == "after backward" else nullcontext(),
        profile(activities=[ProfilerActivity.CPU]) as profiler,
    ):
        trainer.fit(module, loader)
    assert trainer.global_step == STEPS
    assert trainer.accumulate_grad_batches == accumulate
    names = [event.name for event in profiler.events()]
    wanted = {
        "all_reduce": "c10d::allreduce_",
        "coalesced": "c10d::allreduce_coalesced_",
        "reduce_scatter": "c10d::_reduce_scatter_base_",
    }
    counts = {what: names.count(name) for what, name in wanted.items()}
    weights = torch.cat([p.detach().flatten() for p in module.parameters()]).tolist() if strategy != "fsdp" else []
    return counts | {"weights": weights}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    cases = [(strategy, accumulate) for strategy in ("ddp", "fsdp", "after backward") for accumulate in (1, 4)]
    found = [[*case, exchanges(*case, sys.argv[1])] for case in cases]
    if torch.distributed.get_rank() == 0:
        print("COUNTED", json.dumps(found), flush=True)

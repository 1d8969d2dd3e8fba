"""Trainings under guards, some of whose steps are not finite."""

import json
import math

import torch
from lightning.pytorch.callbacks import Callback

from lit_t6 import LitT6, TokenDataModule
from lit_t6.training import Guards, OptimizerConfig

from ..runs import SMALL, make_trainer


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

"""The training steps that are timed, each as its owner trains.

Letters: B batch, T positions.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_t6.bench.training.case import OURS, Case
from lit_t6.bench.training.upstream import fill_rotary_tables, load
from lit_t6.model import IGNORED_TARGET
from lit_t6.training import LitT6

CLIP = 1.0
"""Largest norm of the gradient, in the paper's recipe as in the authors' files."""
STARTING_STD = 0.02
"""Of the weights that would start at zero."""


class Step(ABC):
    """Forward, backward, clipping, AdamW and clearing of the gradients, without a loop around them.

    Args:
        case: what is trained.
    """

    model: nn.Module
    """Whose weights are trained."""
    ignored: int
    """A target that does not count."""

    def __init__(self, case: Case) -> None:
        self.case = case

    @abstractmethod
    def forward_backward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, (B, T) each, in nats; gradients are with the weights afterwards."""

    @abstractmethod
    def update(self) -> None:
        """Clip, take the step, clear the gradients."""

    def __call__(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """A whole step; its loss."""
        loss = self.forward_backward(tokens, targets)
        self.update()
        return loss.detach()

    @torch.no_grad()
    def fill_zeros(self) -> None:
        """Draw the weights that start at zero, output projections: with zeros, most gradients would be zeros too."""
        for parameter in self.model.parameters():
            if not parameter.any():
                parameter.normal_(std=STARTING_STD)


class OurStep(Step):
    """`LitT6.training_step` and what Lightning's trainer does around it: autocast, clipping, fused AdamW."""

    ignored = IGNORED_TARGET

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        with torch.device(case.device):
            module = LitT6(case.model_config, compile=case.compile, recompute=case.recompute)
        self.module = module.to(case.device)  # tables of RoPE are made where the module is moved
        self.model = self.module.model
        self.fill_zeros()
        self.autocast = case.autocast()
        self.weights = list(self.module.parameters())
        self.optimizer = self.module.optimizer_config.build(self.weights)

    def forward_backward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        with self.autocast():
            loss = self.module.training_step({"tokens": tokens, "targets": targets}, 0)
        loss.backward()
        return loss

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class UpstreamStep(Step):
    """One pass of the loop in the authors' train_adam_fw.py, with their model, on one GPU.

    As there: AdamW that is not fused and decays every weight, the norm of the gradient is read at every step, logits
    are returned by the model and held to the next step, products in float32 may round to TF32. Not as there: tables of
    RoPE are made before the first step, since else every model would be compiled twice; and no scaler is called, which
    does nothing in bfloat16.
    """

    ignored = -1

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        assert case.upstream is not None
        code = load(Path(case.upstream["file"]))
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        settings: dict[str, Any] = case.upstream["settings"]
        self.model = code.GPT(code.GPTConfig(**settings)).to(case.device)
        self.fill_zeros()
        fill_rotary_tables(self.model, case.seq_len, case.device)
        self.autocast = case.autocast(cache_enabled=True)
        self.weights = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=6e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
        self.trained = torch.compile(self.model) if case.compile else self.model
        self.logits: Tensor | None = None

    def forward_backward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        with self.autocast():
            self.logits, loss = self.trained(tokens, targets)
        loss.backward()
        return loss

    def update(self) -> None:
        norm = nn.utils.clip_grad_norm_(self.weights, CLIP)
        norm.item()  # they count the steps that were clipped
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def make_step(case: Case) -> Step:
    """The step of a case; its weights and whatever it draws follow from the case's seed."""
    torch.manual_seed(case.seed)
    return OurStep(case) if case.code == OURS else UpstreamStep(case)

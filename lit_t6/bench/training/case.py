"""What one process measures: a model, whose code it is, and how it is trained.

Letters: B sequences of a batch, T tokens of each.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, Self

import torch

from lit_t6.model import Recompute, T6Config

OURS, UPSTREAM = "lit_t6", "upstream"
Precision = Literal["bf16-mixed", "32-true"]
Context = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Case:
    """A training step that is measured.

    Args:
        name: of the model: that of its file, such as "medium-tpa".
        code: whose: `OURS` or `UPSTREAM`.
        config: of the model, in the plain form of `T6Config.to_dict`; of the authors' code, of ours that equals theirs.
        batch: B.
        seq_len: T.
        steps: timed.
        warmup: steps before them that are not timed, after the first one.
        precision: as Lightning names it.
        compile: whether the step goes through torch.compile.
        seed: of weights and tokens.
        device: such as "cuda:0".
        check_tokens: of a sequence, at most so many are compared with float64.
        upstream: of the authors' code: `file`, `arch` and `settings` of the model; else null.
        recompute: what our blocks compute again on the way back.
    """

    name: str
    code: str
    config: dict[str, Any]
    batch: int
    seq_len: int
    steps: int
    warmup: int
    precision: Precision
    compile: bool
    seed: int
    device: str
    check_tokens: int = 512
    upstream: dict[str, Any] | None = None
    recompute: Recompute = "none"

    @property
    def model_config(self) -> T6Config:
        """The model's settings, its head count known."""
        return T6Config.from_dict(self.config).resolved()

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells it from the others of a run: name, code, B and T."""
        return self.name, self.code, self.batch, self.seq_len

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return torch.device(self.device).type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """In which products are computed."""
        return torch.bfloat16 if self.precision == "bf16-mixed" else torch.float32

    def autocast(self, cache_enabled: bool = False) -> Context:
        """Makes the context of a forward pass; by default as Lightning's trainer does."""
        if self.precision == "32-true":
            return nullcontext
        kind = torch.device(self.device).type
        return partial(torch.autocast, kind, dtype=self.dtype, cache_enabled=cache_enabled)

    def to_dict(self) -> dict[str, Any]:
        """Plain, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**plain)

    def __str__(self) -> str:
        whose = "ours" if self.code == OURS else "the authors'"
        return f"{self.name}, {whose}, {self.batch} × {self.seq_len:,}"

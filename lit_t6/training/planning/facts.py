"""What is known of a training before it runs: the model's size and cache, and the arithmetic of its budget."""

import math
from dataclasses import dataclass
from typing import Any

from lit_t6.attention import is_unequal
from lit_t6.data.manifest import Manifest, read_manifest
from lit_t6.training.callbacks.throughput import cache_bytes_per_token
from lit_t6.training.planning.fit_reader import FitSettings


@dataclass(frozen=True)
class Facts:
    """A training in figures. Of one without an end that is known beforehand (`max_time`) the last four are None.

    Args:
        mechanism: label of its attention.
        num_heads: H.
        head_dim: D.
        num_parameters: of the whole model.
        cache_bytes_per_token: what decoding keeps of a token in all layers, in the type that activations have.
        flops_per_token: of a training step: forward, backward; a multiply-add is two.
        num_steps: optimizer steps.
        num_tokens: trained on.
        num_evaluated: tokens of all validations.
        flops: of all training steps and validations.
    """

    mechanism: str
    num_heads: int
    head_dim: int
    num_parameters: int
    cache_bytes_per_token: int
    flops_per_token: float
    num_steps: int | None
    num_tokens: int | None
    num_evaluated: int | None
    flops: float | None

    def is_unequal_to(self, num_parameters: int) -> bool:
        """Whether the model is too far from a number of parameters for a fair comparison."""
        return is_unequal(self.num_parameters / num_parameters)


def facts_from(settings: FitSettings) -> Facts:
    """The facts of options of `fit`; without its data, as if no validation took place."""
    model, manifest = settings.model, _manifest(settings)
    steps = _num_steps(settings, manifest)
    per_step = settings.sequences_per_step * settings.seq_len
    evaluated = None if steps is None else _num_evaluated(settings, manifest, steps)
    per_token = 3 * model.flops_per_token(settings.seq_len)
    flops = None if steps is None else per_token * (steps * per_step + (evaluated or 0) / 3)
    return Facts(
        mechanism=model.attention.label,
        num_heads=model.attention.heads(),
        head_dim=model.attention.head_dim,
        num_parameters=model.num_parameters(),
        cache_bytes_per_token=cache_bytes_per_token(model, settings.precision),
        flops_per_token=per_token,
        num_steps=steps,
        num_tokens=None if steps is None else steps * per_step,
        num_evaluated=evaluated,
        flops=flops,
    )


def _manifest(settings: FitSettings) -> Manifest | None:
    try:
        return read_manifest(settings.data["path"])
    except ValueError:  # `check_data` says so; a training may be looked at where its data is not
        return None


def _num_steps(settings: FitSettings, manifest: Manifest | None) -> int | None:
    steps, epochs = settings.trainer["max_steps"], settings.trainer["max_epochs"]
    limits = [steps] if steps > 0 else []
    if epochs not in (None, -1) and manifest is not None:
        windows = (manifest.splits["train"].tokens - 1) // settings.seq_len
        limits.append(epochs * math.ceil(windows / settings.sequences_per_step))
    return min(limits, default=None)


def _num_evaluated(settings: FitSettings, manifest: Manifest | None, steps: int) -> int:
    """Tokens of the validations of a training, the one at its end among them."""
    trainer = settings.trainer
    if manifest is None or "validation" not in manifest.splits or trainer.get("limit_val_batches") == 0:
        return 0
    split = manifest.splits["validation"].tokens
    once = min(split, (settings.data["eval_windows"] or math.inf) * settings.seq_len)
    return int(once * num_validations(trainer, settings, steps))


def num_validations(trainer: dict[str, Any], settings: FitSettings, steps: int) -> int:
    """How often a training validates: at its interval, and at its end.

    Args:
        trainer: options of the trainer.
        settings: whose data says what an interval counts.
        steps: optimizer steps of the training.
    """
    interval = trainer.get("val_check_interval")
    if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
        return 1  # a share of an epoch, or a time: too little is known
    if settings.data["global_batch_size"] is None:  # batches are counted, which may be parts of a step
        interval = max(1, round(interval / settings.batches_per_step))
    return max(1, math.ceil(steps / interval))

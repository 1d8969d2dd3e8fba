"""Whether a training step computes the right loss and gradients: before it does, nobody is told how fast it is.

The very step that is timed afterwards, of the same shape, is given targets of which few count: the first tokens of the
first row, and of the last. Loss and gradients are then those of these tokens alone, which the specification can compute
in float64 though it needs memory by the square of the length.

Letters: B batch, T positions.
"""

import functools
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lit_t6.bench.training.case import Case, Context
from lit_t6.interop import from_upstream
from lit_t6.model import T6Config, T6Model
from lit_t6.testing import assert_as_exact_as

UPSTREAM_ALLOWED = 1e-2
"""By how much the loss of the authors' code may differ from that of the same weights in ours: theirs rounds the tables
of RoPE to bfloat16."""

Spans = dict[int, int]
"""How many tokens are counted of a row, from its first on."""


@dataclass
class Found:
    """What a step computed.

    Args:
        loss: mean over the counted targets, in nats.
        gradients: by the names of the weights, wherever they lie.
    """

    loss: float
    gradients: dict[str, Tensor]


@dataclass
class Verdict:
    """What a check found.

    Args:
        loss: of the step.
        exact_loss: that in float64.
        error: of all gradients together: norm of the difference from float64 over the norm of the truth.
        reference_error: the same of the reference in the precision of the step.
        problem: what is wrong, or None.
    """

    loss: float
    exact_loss: float
    error: float | None = None
    reference_error: float | None = None
    problem: str | None = None


def choose_spans(batch: int, seq_len: int, most: int) -> Spans:
    """What is counted: the last row up to `most` tokens, and of the first row a quarter of that.

    Args:
        batch: B.
        seq_len: T.
        most: tokens.
    """
    length = min(seq_len, most)
    return {0: max(1, length // 4)} | {batch - 1: length}


def counted(targets: Tensor, spans: Spans, ignored: int) -> Tensor:
    """The targets (B, T) in which only the spans count."""
    kept = torch.full_like(targets, ignored)
    for row, length in spans.items():
        kept[row, :length] = targets[row, :length]
    return kept


def reference_of(config: T6Config) -> T6Config:
    """The settings of the same model by the specification, where its mechanism has one apart."""
    if not hasattr(config.attention, "impl"):
        return config
    return replace(config, attention=replace(config.attention, impl="reference"))  # type: ignore[type-var]


def compute(
    config: T6Config,
    weights: dict[str, Tensor],
    tokens: Tensor,
    targets: Tensor,
    spans: Spans,
    dtype: torch.dtype,
    autocast: Context,
) -> Found:
    """Loss and gradients by the reference, not compiled, of one row at a time.

    A block's activations are computed again for its backward pass, so that memory holds those of one.

    Args:
        config: of the model.
        weights: its state dict.
        tokens: (B, T), on the device that computes.
        targets: (B, T).
        spans: what counts.
        dtype: of the weights.
        autocast: around the forward pass.
    """
    with torch.device(tokens.device):
        model = T6Model(reference_of(config))
    model = model.to(device=tokens.device, dtype=dtype)
    model.load_state_dict(weights)
    for block in model.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    count, total = sum(spans.values()), 0.0
    for row, length in spans.items():
        place = (slice(row, row + 1), slice(length))
        with autocast():
            loss = model.loss(tokens[place], targets[place], reduction="sum") / count
        loss.backward()
        total += loss.item()
    return Found(total, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def judge(found: Found, reference: Found, exact: Found, dtype: torch.dtype) -> Verdict:
    """Compare a step with the truth.

    The error of the loss may be twice that of the reference in the same precision, plus one unit in the last place of
    the truth; the gradient of each weight must be as exact by the rules of `lit_t6.testing.assert_as_exact_as`.

    Args:
        found: of the step.
        reference: of the reference, in the precision of the step.
        exact: of the reference, in float64.
        dtype: in which the step computes products.
    """
    error, eps = abs(found.loss - exact.loss), torch.finfo(dtype).eps
    allowed = 2 * abs(reference.loss - exact.loss) + eps * abs(exact.loss)
    problems = [] if error <= allowed else [f"loss {found.loss:.6g}, exactly {exact.loss:.6g}, ± {allowed:.1g} allowed"]
    squares = torch.zeros(3, dtype=torch.float64)  # of the step's error, the reference's error, the truth
    for name, truth in exact.gradients.items():
        if name not in found.gradients:
            problems.append(f"gradient of {name}: there is none")
            continue
        gradient, theirs = found.gradients[name].to(truth.device), reference.gradients[name]
        try:
            assert_as_exact_as(gradient, theirs, truth, f"gradient of {name}", dtype)
        except AssertionError as wrong:
            problems.append(str(wrong))
        norms = [(x.double() - truth).norm().item() for x in (gradient, theirs)]
        squares += torch.tensor([*norms, truth.norm().item()], dtype=torch.float64).square()
    of_step, of_reference, _ = (squares / squares[2]).sqrt().tolist()
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Verdict(found.loss, exact.loss, of_step, of_reference, problems[0] + more if problems else None)


def check_ours(
    case: Case, found: Found, weights: dict[str, Tensor], tokens: Tensor, targets: Tensor, spans: Spans
) -> Verdict:
    """Judge a step of ours.

    Args:
        case: what was trained.
        found: loss and gradients of the spans.
        weights: from before the step.
        tokens: (B, T).
        targets: (B, T).
        spans: what counted.
    """
    rows = (case.model_config, weights, tokens, targets, spans)
    exact = compute(*rows, torch.float64, nullcontext)
    reference = compute(*rows, torch.float32, case.autocast())
    return judge(found, reference, exact, case.dtype)


@torch.no_grad()
def check_upstream(
    case: Case, loss: float, weights: dict[str, Tensor], tokens: Tensor, targets: Tensor, spans: Spans
) -> Verdict:
    """Judge a step of the authors' code by its loss: that of our model with the same weights, in float64.

    Arguments as of `check_ours`.
    """
    assert case.upstream is not None
    model = from_upstream(weights, case.upstream["settings"], case.upstream["arch"])
    model = model.to(device=tokens.device, dtype=torch.float64)
    total = 0.0
    for row, length in spans.items():
        place = (slice(row, row + 1), slice(length))
        total += model.loss(tokens[place], targets[place], reduction="sum").item()
    exact = total / sum(spans.values())
    problem = None
    if not abs(loss - exact) <= UPSTREAM_ALLOWED * exact:
        problem = (
            f"loss {loss:.6g}, of the same weights in our model {exact:.6g}, within {UPSTREAM_ALLOWED:.0%} allowed"
        )
    return Verdict(loss, exact, problem=problem)

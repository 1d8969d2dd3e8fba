"""Measures one case; run as a process: python -m lit_t6.bench.training.worker CASE.json RESULT.json."""

import gc
import json
import math
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from lit_t6.bench.training.case import OURS, Case
from lit_t6.bench.training.checks import Found, Spans, Verdict, check_ours, check_upstream, choose_spans, counted
from lit_t6.bench.training.steps import Step, make_step
from lit_t6.training.callbacks.throughput import mark, peak_flops, peak_memory, reset_peak, seconds_between


def measure(case: Case) -> dict[str, Any]:
    """Check a case, then time it.

    Args:
        case: what is trained.

    Returns:
        `status` ("timed" or "wrong"), `why` it has no time, and the other fields of `results.Entry`.
    """
    torch.set_float32_matmul_precision("high")  # as `fit` does
    device = torch.device(case.device)
    if case.on_gpu:
        torch.cuda.set_device(device.index or 0)
    step = make_step(case)
    vocab_size = case.model_config.vocab_size
    tokens, targets = (torch.randint(vocab_size, (case.batch, case.seq_len), device=device) for _ in range(2))
    first_seconds, verdict = _first_step(case, step, tokens, targets)
    found: dict[str, Any] = {
        "first_step_seconds": first_seconds,
        "loss": verdict.loss,
        "exact_loss": verdict.exact_loss,
        "gradient_error": verdict.error,
        "reference_gradient_error": verdict.reference_error,
    }
    if verdict.problem is not None:
        return found | {"status": "wrong", "why": verdict.problem}
    step(tokens, targets)
    graphs = _graphs()
    for _ in range(case.warmup - 1):
        step(tokens, targets)
    seconds, loss = _timed_steps(case, step, tokens, targets)
    if not math.isfinite(loss):
        return found | {"status": "wrong", "why": f"the loss is {loss} after {1 + case.warmup + case.steps} steps"}
    each = statistics.median(seconds)
    rate = case.batch * case.seq_len / each
    peak = peak_flops(device)
    return found | {
        "status": "timed",
        "step_ms": 1000 * each,
        "fastest_ms": 1000 * min(seconds),
        "slowest_ms": 1000 * max(seconds),
        "tokens_per_sec": rate,
        "mfu": None if peak is None else rate * 3 * case.model_config.flops_per_token(case.seq_len) / peak,
        "peak_gib": peak_memory(device) / 2**30,
        "graphs": _graphs(),
        "late_graphs": _graphs() - graphs,
        "graph_breaks": sum(counters["graph_break"].values()),
    }


def _first_step(case: Case, step: Step, tokens: Tensor, targets: Tensor) -> tuple[float, Verdict]:
    """Seconds of the first step, compiling included, and whether its loss and gradients were right."""
    spans = choose_spans(case.batch, case.seq_len, case.check_tokens)
    # On the CPU, since a batch may leave little room.
    weights = {name: weight.detach().to("cpu", copy=True) for name, weight in step.model.state_dict().items()}
    few = counted(targets, spans, step.ignored)
    began = _now(case)
    loss = step.forward_backward(tokens, few)
    middle = _now(case)
    gradients = {}
    if case.code == OURS:
        gradients = {n: p.grad.to("cpu", copy=True) for n, p in step.model.named_parameters() if p.grad is not None}
    again = _now(case)
    step.update()
    seconds = middle - began + _now(case) - again
    verdict = _check(case, Found(loss.item(), gradients), weights, tokens, targets, spans)
    gc.collect()
    if case.on_gpu:
        torch.cuda.empty_cache()
    return seconds, verdict


def _check(
    case: Case, found: Found, weights: dict[str, Tensor], tokens: Tensor, targets: Tensor, spans: Spans
) -> Verdict:
    if case.on_gpu:
        torch.cuda.empty_cache()  # of the activations
    rows = (weights, tokens, targets, spans)
    return check_ours(case, found, *rows) if case.code == OURS else check_upstream(case, found.loss, *rows)


def _timed_steps(case: Case, step: Step, tokens: Tensor, targets: Tensor) -> tuple[list[float], float]:
    """Seconds of each step, and the last loss."""
    device = torch.device(case.device)
    _now(case)
    reset_peak(device)
    marks = [mark(device)]
    for _ in range(case.steps):
        loss = step(tokens, targets)
        marks.append(mark(device))
    _now(case)
    return [seconds_between(*span) for span in pairwise(marks)], loss.item()


def _now(case: Case) -> float:
    """The time, once the device has done its work."""
    if case.on_gpu:
        torch.cuda.synchronize(case.device)
    return time.perf_counter()


def _graphs() -> int:
    """Graphs that torch.compile has made in this process so far."""
    return counters["stats"]["unique_graphs"]


def main(arguments: Sequence[str]) -> int:
    """Measure the case of a file and write what was found, or why nothing was, to another.

    Args:
        arguments: the paths of both.

    Returns:
        The exit status.
    """
    source, target = map(Path, arguments)
    try:
        found = measure(Case.from_dict(json.loads(source.read_text())))
    except torch.OutOfMemoryError as error:
        traceback.print_exc()
        found = {"status": "no memory", "why": _one_line(error)}
    except Exception as error:  # an entry of the table; the whole of it is in the log
        traceback.print_exc()
        found = {"status": "failed", "why": _one_line(error)}
    target.write_text(json.dumps(found))
    return 0


def _one_line(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How long trials take: by finished ones, a rate that is stated, or a few steps that are measured here."""

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lit_t6.model import T6Model
from lit_t6.sweeps.devices import cores
from lit_t6.sweeps.fit_reader import FitSettings

START_SECONDS = 6.0
"""From the start of a process to its first step, roughly; on a GPU, compiling comes on top."""
_AND_A_START = f", and {START_SECONDS:.0f} s for the start of a process"
_FLOPS_AT_ONCE = {"cpu": 2e11, "cuda": 2e14}
"""Of a measured step, at most: a second or so on two cores, and on a large GPU."""
_STEPS = 3


@dataclass(frozen=True)
class Rate:
    """How fast trials go.

    Args:
        flops_per_second: of training steps, by our formula.
        start_seconds: of a trial, before its first step and after its last.
        origin: what these are from, for people.
        seconds: of whole trials, of cells that have finished ones.
        finished: whether it is from finished trials, and so of all devices of a trial.
    """

    flops_per_second: float
    start_seconds: float
    origin: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    finished: bool = False

    def estimate(self, cell: str, flops: float) -> float:
        """Seconds of one trial of a cell."""
        return self.seconds[cell] if cell in self.seconds else self.start_seconds + flops / self.flops_per_second


def stated_rate(flops_per_second: float) -> Rate:
    """A rate that somebody knows.

    Raises:
        ValueError: it is not above 0.
    """
    if not flops_per_second > 0:
        raise ValueError(f"rate: expected FLOP/s above 0, such as 2.5e14, got {flops_per_second}.")
    return Rate(flops_per_second, START_SECONDS, f"{flops_per_second:.3g} FLOP/s as stated{_AND_A_START}")


def rate_of_finished(folder: Path, flops: Mapping[str, float | None]) -> Rate | None:
    """The rate of the completed trials of a study; None if there are none.

    Args:
        folder: of the study: CELL/seed-S/trial.json below it says what became of a trial, and its seconds.
        flops: of a trial of each cell; a trial of none of these, as in a search, is taken for the median of them.
    """
    budgets = [budget for budget in flops.values() if budget]
    trials = [read for path in sorted(folder.glob("*/*/trial.json")) if (read := _read_finished(path))]
    if not trials or not budgets:
        return None
    by_cell: dict[str, list[float]] = {}
    rates = []
    for cell, seconds in trials:
        by_cell.setdefault(cell, []).append(seconds)
        at_work = max(seconds - START_SECONDS, seconds / 2)
        rates.append((flops.get(cell) or statistics.median(budgets)) / at_work)
    origin = f"{len(trials)} finished trial{'s' if len(trials) > 1 else ''} of this study"
    medians = {cell: statistics.median(found) for cell, found in by_cell.items()}
    return Rate(statistics.median(rates), START_SECONDS, origin, medians, finished=True)


def _read_finished(path: Path) -> tuple[str, float] | None:
    """Cell and seconds of a completed trial."""
    try:
        trial: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return (str(trial["cell"]), float(trial["seconds"])) if trial["outcome"] == "completed" else None
    except (OSError, ValueError, KeyError, TypeError):  # of another version: no time is known of it
        return None


def measured_rate(settings: FitSettings, workers: int = 1) -> Rate | None:
    """The rate of a few training steps, taken here and now, of the model itself or, if it is large, a part of it.

    Args:
        settings: of a cell.
        workers: trials that go on at once; those on a CPU share its cores.

    Returns:
        None where the training wants a GPU and there is none.
    """
    device = torch.device("cpu" if settings.on_cpu else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        return None
    threads = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(max(1, cores() // workers))
        rate, what = _measure(settings, device)
        used = torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)
    where = f"{used} CPU thread{'s' if used > 1 else ''}" if device.type == "cpu" else torch.cuda.get_device_name()
    compiled = ", not compiled as the trials are" if settings.compiles else ""
    origin = f"{rate:.3g} FLOP/s in {_STEPS} training steps measured here ({what}; {where}{compiled}){_AND_A_START}"
    return Rate(rate, START_SECONDS, origin)


def _measure(settings: FitSettings, device: torch.device) -> tuple[float, str]:
    model, length, batch = settings.model, settings.seq_len, settings.data["batch_size"]
    most = _FLOPS_AT_ONCE[device.type]
    of_a_sequence = 3 * model.flops_per_token(length) * length
    batch = max(1, min(batch, int(most / of_a_sequence)))
    if of_a_sequence > most:
        layers = max(1, int(model.num_layers * most / of_a_sequence))
        model, length = replace(model, num_layers=layers), min(length, 256)
    with torch.random.fork_rng(devices=[]):
        network = T6Model(model).to(device)
    optimizer = settings.optimizer.build(network.parameters())
    tokens = torch.zeros(batch, length, dtype=torch.long, device=device)
    dtype = torch.float16 if settings.precision == "16-mixed" else torch.bfloat16
    seconds = []
    for _ in range(1 + _STEPS):
        began = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled="mixed" in settings.precision):
            loss = network.loss(tokens, tokens, recompute=settings.recompute)  # type: ignore[arg-type]  # one of them
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    part = f"{model.num_layers} of {settings.model.num_layers} layers, " if model != settings.model else ""
    rate = 3 * model.flops_per_token(length) * batch * length / statistics.median(seconds[1:])
    return rate, f"{part}{batch} × {length} tokens"

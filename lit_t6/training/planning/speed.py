"""How fast a training is here: a few of its steps, measured."""

import statistics
import time
from dataclasses import replace
from typing import NamedTuple

import torch

from lit_t6.model import T6Model
from lit_t6.processors import cores
from lit_t6.training.messages import counted
from lit_t6.training.planning.fit_reader import FitSettings

_FLOPS_AT_ONCE = {"cpu": 2e11, "cuda": 2e14}
"""Of a measured step, at most: a second or so on two cores, and on a large GPU."""
_STEPS = 3


class Speed(NamedTuple):
    """Of training steps.

    Args:
        flops_per_second: by our formula.
        origin: what was measured, for people.
    """

    flops_per_second: float
    origin: str


def measured_speed(settings: FitSettings, workers: int = 1) -> Speed | None:
    """The speed of a few training steps, taken here and now, of the model itself or, if it is large, a part of it.

    Args:
        settings: of the training.
        workers: trainings that go on at once; those on a CPU share its cores.

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
    where = counted(used, "CPU thread") if device.type == "cpu" else torch.cuda.get_device_name()
    compiled = ", not compiled as the trials are" if settings.compiles else ""
    return Speed(rate, f"{rate:.3g} FLOP/s in {_STEPS} training steps measured here ({what}; {where}{compiled})")


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

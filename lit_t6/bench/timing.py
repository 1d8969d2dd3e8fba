"""How long a call takes, with its inputs in memory and not in a cache of the processor."""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

Call = Callable[[], Tensor]
REPLAYS = 20
"""The median is over so many at least."""
SETS_AT_MOST = 128
"""Sets of inputs."""


class Timing(NamedTuple):
    """Times of a call in milliseconds, and what it gave when it was timed.

    Args:
        ms: the median.
        fastest_ms: the fastest replay.
        slowest_ms: the slowest.
        output: of the first call.
    """

    ms: float
    fastest_ms: float
    slowest_ms: float
    output: Tensor


def l2_bytes(device: str) -> int:
    """Size of the last cache before the memory; of a CPU's nothing is known here."""
    if torch.device(device).type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def num_sets(nbytes: int, device: str) -> int:
    """How many sets of inputs are used in turn, so that each is read from memory: together above twice the L2.

    Args:
        nbytes: of one set.
        device: where they lie.
    """
    return max(1, min(SETS_AT_MOST, 2 * l2_bytes(device) // nbytes + 1))


def time_calls(calls: Sequence[Call], device: str, replays: int = REPLAYS, graph: bool = True) -> Timing:
    """Time calls one after the other; what is told is the time of one of them.

    On a GPU all of them are recorded as one CUDA graph, which is replayed between events: the time that Python takes
    to start kernels is not counted.

    Args:
        calls: the same work on different inputs.
        device: where they run.
        replays: how many times all of them are timed.
        graph: else Python calls them again each time, and where it takes longer than the GPU its time is told.
    """
    on_gpu = torch.device(device).type == "cuda"
    turns, output = (_cpu_turns if not on_gpu else _gpu_turns if graph else _called_turns)(calls, replays)
    each = [turn / len(calls) for turn in turns]
    return Timing(statistics.median(each), min(each), max(each), output)


def _gpu_turns(calls: Sequence[Call], replays: int) -> tuple[list[float], Tensor]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is compiled, tuned or loaded at a first call cannot be recorded
        for call in [calls[0], calls[0], *calls]:
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = calls[0]()
        for call in calls[1:]:
            call()
    output.fill_(float("nan"))  # what is checked afterwards was written by a replay
    for _ in range(3):
        graph.replay()
    turns = _between_events(graph.replay, replays)
    return turns, output.clone()  # the graph's memory goes with it


def _called_turns(calls: Sequence[Call], replays: int) -> tuple[list[float], Tensor]:
    outputs: list[Tensor] = []

    def turn() -> None:
        outputs[:] = [calls[0]()]
        for call in calls[1:]:
            call()

    for _ in range(3):
        turn()
    return _between_events(turn, replays), outputs[0]


def _between_events(turn: Callable[[], None], replays: int) -> list[float]:
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(replays + 1)]
    marks[0].record()
    for mark in marks[1:]:
        turn()
        mark.record()
    torch.cuda.synchronize()
    return [first.elapsed_time(second) for first, second in pairwise(marks)]


def _cpu_turns(calls: Sequence[Call], replays: int) -> tuple[list[float], Tensor]:
    output = calls[0]()
    turns = []
    for _ in range(replays):
        began = time.perf_counter()
        for call in calls:
            call()
        turns.append(1000 * (time.perf_counter() - began))
    return turns, output

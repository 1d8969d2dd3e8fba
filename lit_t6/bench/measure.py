"""Measuring one mechanism at one point: inputs, the truth, and each peer's output before its time."""

import time
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lit_t6.bench.checks import judge
from lit_t6.bench.grid import Point, free_memory, no_room
from lit_t6.bench.mechanisms import Inputs
from lit_t6.bench.peers import Peer
from lit_t6.bench.results import Entry
from lit_t6.bench.timing import l2_bytes, num_sets, time_calls


class Preparing:
    """Seconds that peers took to prepare, by library and mechanism."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    def add(self, peer: Peer, seconds: float) -> None:
        """Count them."""
        key = (peer.library, peer.mechanism.name)
        self._seconds[key] = self._seconds.get(key, 0.0) + seconds

    def given_up(self, peer: Peer) -> str | None:
        """Why a peer is not tried again: it took its time; None if it may be."""
        spent = self._seconds.get((peer.library, peer.mechanism.name), 0.0)
        limit = peer.preparing_seconds
        if limit is None or spent < limit:
            return None
        return f"compiling it for earlier shapes took {spent:.0f} s of the {limit:.0f} s that it has in a run"


def measure(
    point: Point, peers: Sequence[Peer], seed: int, memory: int | None, preparing: Preparing, graph: bool = True
) -> Iterator[Entry]:
    """Measure the peers of one mechanism at a point.

    Args:
        point: the shape.
        peers: of one mechanism.
        seed: of the random inputs.
        memory: bytes that may be used; None for what is free.
        preparing: what preparing took so far; is added to.
        graph: whether steps are replayed as CUDA graphs.

    Yields:
        An entry for each peer.
    """
    mechanism = peers[0].mechanism
    possible: list[Peer] = []
    for peer in peers:
        problem = mechanism.why_not(point) or peer.why_not(point) or preparing.given_up(peer)
        if problem:
            yield _entry(point, peer, "left out", problem)
        else:
            possible.append(peer)
    if not possible:
        return
    sets = num_sets(mechanism.cache_bytes(point), point.device)
    free = free_memory(point.device) if memory is None else memory
    problem = no_room(mechanism.needed_bytes(point, sets), free)
    if problem:
        yield from (_entry(point, peer, "no memory", problem) for peer in possible)
        return
    generator = torch.Generator(point.device).manual_seed(seed)
    try:
        inputs = [mechanism.draw(point, generator) for _ in range(sets)]
        exact = mechanism.exact(point, inputs[0])
        reference = mechanism.reference(point, inputs[0]) if any(peer.strict for peer in possible) else None
    except torch.OutOfMemoryError as error:  # `needed_bytes` is about right, and others use the GPU too
        problem = f"inputs and truth: {_first_line(error)}"
        yield from (_entry(point, peer, "no memory", problem) for peer in possible)
        return
    for peer in possible:
        copies = sets * mechanism.cache_bytes(point) if peer.copies else 0
        free = free_memory(point.device) if memory is None else memory - mechanism.needed_bytes(point, sets)
        problem = no_room(copies, free)
        if problem:
            yield _entry(point, peer, "no memory", f"its copy of the cache {problem}")
            continue
        yield _measure_one(point, peer, inputs, exact, reference if peer.strict else None, preparing, graph)


def _measure_one(
    point: Point,
    peer: Peer,
    inputs: list[Inputs],
    exact: Tensor,
    reference: Tensor | None,
    preparing: Preparing,
    graph: bool,
) -> Entry:
    began = time.monotonic()
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's code, about what it cannot do
            calls = peer.prepare(point, inputs)
            first = judge(
                peer.result(calls[0](), point), exact, reference, point.dtype
            )  # its error was read: it is done
            seconds = time.monotonic() - began
            preparing.add(peer, seconds)
            if first.problem:
                return _entry(point, peer, "wrong", first.problem, error=first.error, allowed=first.allowed)
            timing = time_calls(calls, point.device, graph=graph)
            verdict = judge(peer.result(timing.output, point), exact, reference, point.dtype)
    except torch.OutOfMemoryError as error:
        return _entry(point, peer, "no memory", _first_line(error))
    except Exception as error:  # a peer is other people's code and fails in its own ways: that is a result too
        preparing.add(peer, time.monotonic() - began)
        if point.on_gpu:
            torch.cuda.synchronize()  # if the GPU itself is in disorder, this ends the run: all else would fail too
        return _entry(point, peer, "failed", _first_line(error))
    if verdict.problem:
        problem = f"when it was timed: {verdict.problem}"
        return _entry(point, peer, "wrong", problem, error=verdict.error, allowed=verdict.allowed)
    return _entry(
        point,
        peer,
        "timed",
        ms=timing.ms,
        fastest_ms=timing.fastest_ms,
        slowest_ms=timing.slowest_ms,
        sets=len(inputs),
        from_memory=len(inputs) * peer.mechanism.cache_bytes(point) > 2 * l2_bytes(point.device),
        error=verdict.error,
        allowed=verdict.allowed,
        preparing_seconds=round(seconds, 3),
    )


def _entry(point: Point, peer: Peer, status: str, why: str | None = None, **found: float | int | str | bool) -> Entry:
    size = peer.mechanism.cache_bytes(point)
    names = (peer.mechanism.name, peer.library, peer.variant)
    return Entry(*point.shape, *names, cache_bytes=size, status=status, why=why, **found)  # type: ignore[arg-type]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"

"""`python cli.py bench decode`: the speed of one decode step, beside its peers and the time of reading its cache."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch

from lit_t6.bench.facts import VERSIONS, check_run, facts, open_results, publish
from lit_t6.bench.figure import draw
from lit_t6.bench.grid import DTYPES, Point, order
from lit_t6.bench.measure import Preparing, measure
from lit_t6.bench.mechanisms import MECHANISMS
from lit_t6.bench.messages import Messages
from lit_t6.bench.peers import LIBRARIES, Peer, make_peers
from lit_t6.bench.peers.upstream import find_kernels
from lit_t6.bench.read_rate import measure_read_rates
from lit_t6.bench.report import markdown, place
from lit_t6.bench.results import Results
from lit_t6.command_line.complaints import nearest

CACHES = (4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288)


def bench_decode(
    output: str,
    d_model: Sequence[int] = (1024, 2048, 3072),
    num_heads: Sequence[int] = (),
    head_dim: int = 64,
    batch: Sequence[int] = (1, 2, 4, 8, 16),
    cache: Sequence[int] = CACHES,
    ranks: Sequence[int] = (16, 1, 1),
    kv_groups: int = 4,
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
    mechanisms: Sequence[str] = tuple(MECHANISMS),
    peers: Sequence[str] = LIBRARIES,
    upstream: str | None = None,
    graph: bool = True,
    seconds: float | None = None,
    memory_gib: float | None = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Results:
    """Time one decode step of tensor product attention over a grid of shapes, beside MHA, MQA, GQA and MLA.

    Each step attends with one new token of every sequence to a full cache. Of each mechanism the fastest way counts:
    PyTorch's backends, FlashInfer where it is installed, our own kernels, and of TPA the authors' kernel. The floor is
    the time of reading the cache at the best rate that any kernel reaches in the run. Times are medians of replayed
    CUDA graphs, on inputs that lie in no cache of the GPU. An output is compared with float64 before it is timed; of a
    wrong one no time is told, and the command ends with 1. Lists are typed as `1 16`, `1,16` or `[1,16]`. The first
    points span the grid and later ones fill it; all that was measured is kept when it is stopped.

    Args:
        output: folder for decode.json, decode.md and decode.png.
        d_model: widths of models; each has d_model / head_dim heads.
        num_heads: head counts, in the place of `d_model`: for counts like TPA's, 34 or 47.
        head_dim: size of a head.
        batch: sequences.
        cache: tokens in the cache of each.
        ranks: Rq, Rk and Rv of TPA.
        kv_groups: key/value heads of GQA.
        dtype: of cache, queries and results.
        mechanisms: which to measure; TPA is always.
        peers: whose ways, besides our TPA kernel: lit_t6 (our kernel for dense caches), upstream (the authors' kernel,
            with --upstream), torch (flash, cuDNN, efficient, matrix products), flex (compiled for each shape, for up to
            45 s a mechanism), flashinfer (which compiles its kernels at first, for minutes).
        upstream: a clone of https://github.com/tensorgi/TPA, or its folder `decode`, or a file with the kernel.
        graph: replay steps as CUDA graphs, as models here decode; false: call them one by one, as a loop in Python
            does, where the time to check, plan and start counts. On a CPU there are none.
        seconds: no new measurement begins after so long; null for no limit.
        memory_gib: what may be used at most; null for what is free.
        seed: of the random inputs.
        device: such as cuda, cuda:1 or cpu; the GPU, if there is one.
        resume: go on with the results in the folder, of the same settings, device and versions.
        overwrite: replace the results in the folder.

    Returns:
        What was found.

    Raises:
        ValueError: settings that cannot be, or, after everything is written, wrong results.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kernels = find_kernels(upstream) if upstream is not None else None
    _check(locals())
    heads = list(num_heads) or [width // head_dim for width in d_model]
    rank_q, rank_k, rank_v = ranks
    points = [
        Point(h, head_dim, b, m, (rank_q, rank_k, rank_v), kv_groups, dtype, device)
        for h, b, m in order(heads, batch, cache)
    ]
    results = Results(
        settings={
            "head_dim": head_dim,
            "ranks": list(ranks),
            "kv_groups": kv_groups,
            "dtype": dtype,
            "seed": seed,
            **({} if graph or not points[0].on_gpu else {"graph": False}),
        },
        facts=facts(device, kernels, (*VERSIONS, "flashinfer-python")),
        planned=len(points),
    )
    path = open_results(results, Path(output, "decode.json"), resume, overwrite)
    chosen = [p for p in make_peers(list(peers), kernels) if p.mechanism.name in {"TPA", *mechanisms}]
    memory = None if memory_gib is None else int(memory_gib * 2**30)
    deadline = None if seconds is None else time.monotonic() + seconds
    with torch.cuda.device(device) if points[0].on_gpu else nullcontext():
        _run(results, points, chosen, path, seed, memory, deadline)
    if results.wrong:
        first = results.wrong[0]
        raise ValueError(
            f"{len(results.wrong)} results are wrong and have no time, such as {first.name} at {place(first.shape)}: "
            f"{first.why}."
        )
    return results


def _run(
    results: Results,
    points: list[Point],
    peers: list[Peer],
    path: Path,
    seed: int,
    memory: int | None,
    deadline: float | None,
) -> None:
    try:
        with Messages(len(points)) as messages:
            if not results.read_rates:
                messages.line("measuring how fast memory is read ...")
                results.read_rates = measure_read_rates(points[0].device, _read_bytes(points, memory))
                results.write(path)
            rate, by = results.best_rate()
            messages.line(f"{results.facts['same']['device']}: {rate:,.0f} GB/s read by {by}")
            preparing = Preparing()
            for point in points:
                messages.point(str(point))
                for group in _groups(results, point, peers):
                    found = measure(point, group, seed, memory, preparing, graph=not results.without_graphs)
                    for entry in _until(deadline, found, results):
                        results.entries.append(entry)
                        messages.entry(entry)
                results.write(path)
                if results.stopped:
                    messages.line(f"{results.stopped}; what was measured is kept")
                    break
                messages.done()
    except KeyboardInterrupt:
        results.stopped = "stopped by Ctrl-C"
        raise
    finally:
        if results.entries:
            publish(results, path, markdown(results), draw)


def _read_bytes(points: list[Point], memory: int | None) -> int | None:
    return None if memory is None else min(memory, 2**26)


def _groups(results: Results, point: Point, peers: list[Peer]) -> Iterator[list[Peer]]:
    """Peers that were not measured at the point yet, by mechanism: those of one have the same inputs."""
    known = {e.name for e in results.entries if e.shape == point.shape}
    for mechanism in MECHANISMS.values():
        group = [
            peer
            for peer in peers
            if peer.mechanism is mechanism and f"{mechanism.name} {peer.name}".strip() not in known
        ]
        if group:
            yield group


def _until(deadline: float | None, entries: Iterator[Any], results: Results) -> Iterator[Any]:
    """The entries, until the time is over; there is always a first one."""
    while True:
        if deadline is not None and time.monotonic() > deadline and any(e.ms for e in results.entries):
            results.stopped = "stopped by --seconds"
            return
        try:
            entry = next(entries)
        except StopIteration:
            return
        yield entry


def _check(given: dict[str, Any]) -> None:
    """Raise ValueError for settings that cannot be."""
    for name in ("d_model", "num_heads", "batch", "cache", "ranks"):
        if any(value < 1 for value in given[name]):
            raise ValueError(f"{name}: expected numbers of at least 1, got {list(given[name])}.")
    for name in ("head_dim", "kv_groups", "seconds", "memory_gib"):
        if given[name] is not None and given[name] <= 0:
            raise ValueError(f"{name} must be above 0, got {given[name]}.")
    for name in ("batch", "cache"):
        if not given[name]:
            raise ValueError(f"{name}: expected a number at least.")
    if not given["num_heads"]:
        odd = [width for width in given["d_model"] if width % given["head_dim"]]
        if odd or not given["d_model"]:
            raise ValueError(f"d_model: expected multiples of head_dim {given['head_dim']}, got {odd or 'none'}.")
    if len(given["ranks"]) != 3:
        raise ValueError(f"ranks: expected three numbers, Rq,Rk,Rv such as 16,1,1, got {list(given['ranks'])}.")
    for name, known in (("peers", LIBRARIES), ("mechanisms", tuple(MECHANISMS))):
        for value in given[name]:
            if value not in known:
                raise ValueError(f"{name}: there is no {value!r}{nearest(value, known)} There are {', '.join(known)}.")
    if given["dtype"] not in DTYPES:
        raise ValueError(f"dtype: {given['dtype']!r}, expected one of {', '.join(DTYPES)}.")
    check_run(given["device"], given["resume"], given["overwrite"])

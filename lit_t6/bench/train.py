"""`python cli.py bench train`: the speed of a training step of every mechanism, beside the authors' own code."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from lit_t6.bench.facts import check_run, facts, open_results, publish
from lit_t6.bench.messages import Messages
from lit_t6.bench.training.case import OURS, UPSTREAM, Case, Precision
from lit_t6.bench.training.figure import draw
from lit_t6.bench.training.process import run_case
from lit_t6.bench.training.report import markdown
from lit_t6.bench.training.results import Entry, Results
from lit_t6.bench.training.upstream import counterpart, find_models
from lit_t6.model import Recompute, T6Config, check_recompute
from lit_t6.model_reader import ModelReader

CONFIGS = tuple(
    f"configs/paper/{size}-{mechanism}.yaml"
    for size in ("small", "medium")
    for mechanism in ("tpa", "mha", "gqa", "tpa-kvonly", "mqa", "mla")
)


def bench_train(
    output: str,
    config: Sequence[str] = CONFIGS,
    batch: Sequence[int] = (20,),
    seq_len: Sequence[int] = (1024,),
    steps: int = 20,
    warmup: int = 5,
    precision: Precision = "bf16-mixed",
    compile: bool = True,
    recompute: Recompute = "none",
    upstream: str | None = None,
    check_tokens: int = 512,
    seconds: float | None = None,
    case_seconds: float = 600.0,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Results:
    """Time training steps of models, and with --upstream those of the authors' code at the same sizes.

    A step is forward, backward, clipping, fused AdamW and clearing of gradients on random tokens: what `fit` does at
    each step, without data and logs. Of the authors' code it is one pass of their own training loop. Every case runs in
    a process of its own, with compilers' caches that are empty. Before it is timed, loss and gradients of the very step
    are compared with the reference in float64; of a wrong one no speed is told, and the command ends with 1. What does
    not fit into memory, or fails, is told in the table. Lists are typed as `8192 32768`, `8192,32768` or in brackets.

    Args:
        output: folder for train.json, train.md and train.png.
        config: files of models; those of the paper's small and medium sizes. The first ones are measured first, each
            followed by the authors' code.
        batch: sequences of a step; one number for all lengths, or one for each.
        seq_len: tokens of a sequence.
        steps: timed ones.
        warmup: steps between the first and the timed ones, at least 1.
        precision: bf16-mixed or 32-true.
        compile: compile the step with torch.compile.
        recompute: what our blocks compute again on the way back, as --model.recompute of fit: none, selective or full.
        upstream: a clone of https://github.com/tensorgi/TPA, or its folder `model`.
        check_tokens: tokens of a sequence that are compared with float64, the first ones; memory for that grows with
            their square, and with that of the heads for TPA-KVonly.
        seconds: no new case begins after so long; null for no limit.
        case_seconds: a case that takes longer is killed, and failed.
        seed: of weights and tokens.
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
    models = find_models(upstream) if upstream is not None else None
    _check(locals())
    shared: dict[str, Any] = {"steps": steps, "warmup": warmup, "precision": precision, "compile": compile}
    shared |= {"seed": seed, "check_tokens": check_tokens, "recompute": recompute}
    configs = _read(config)
    batches = list(batch) * (len(seq_len) if len(batch) == 1 else 1)
    shapes = list(zip(batches, seq_len, strict=True))
    cases, left_out = _plan(configs, shapes, models, {**shared, "device": device})
    files = {case.upstream["arch"]: Path(case.upstream["file"]) for case in cases if case.upstream is not None}
    results = Results(settings=shared, facts=facts(device, files), planned=len(cases), left_out=left_out)
    path = open_results(results, Path(output, "train.json"), resume, overwrite)
    deadline = None if seconds is None else time.monotonic() + seconds
    _run(results, cases, path, case_seconds, deadline)
    if results.wrong:
        first = results.wrong[0]
        raise ValueError(f"{len(results.wrong)} cases are wrong and have no speed, such as {first.label}: {first.why}.")
    return results


def _read(files: Sequence[str]) -> dict[str, T6Config]:
    """The models by the names of their files.

    Raises:
        ValueError: a file that `fit` would refuse, or two of one name.
    """
    reader = ModelReader()
    configs: dict[str, T6Config] = {}
    for file in files:
        name = Path(file).stem
        if name in configs:
            raise ValueError(f"config: two files are called {name}, and results are told apart by that name.")
        configs[name] = reader.read(["--config", file]).resolved()
    return configs


def _plan(
    configs: dict[str, T6Config], shapes: list[tuple[int, int]], models: Path | None, shared: dict[str, Any]
) -> tuple[list[Case], list[str]]:
    """All cases in their order, and the models that the authors' code does not have."""
    cases, left_out = [], []
    for batch, seq_len in shapes:
        for name, config in configs.items():
            sized = replace(config, max_seq_len=seq_len)
            ours = Case(name, OURS, sized.to_dict(), batch, seq_len, **shared)
            cases.append(ours)
            if models is None:
                continue
            found = counterpart(sized)
            file = models / f"{found[0]}.py" if found is not None else None
            if found is None or file is None or not file.is_file():
                left_out.append(name)
                continue
            source = {"file": str(file), "arch": found[0], "settings": found[1]}
            cases.append(replace(ours, code=UPSTREAM, upstream=source))
    return cases, list(dict.fromkeys(left_out))


def _run(results: Results, cases: list[Case], path: Path, case_seconds: float, deadline: float | None) -> None:
    known = {entry.key for entry in results.entries}
    try:
        with Messages(len(cases)) as messages:
            messages.line(str(results.facts["same"]["device"]))
            for case in cases:
                if case.key not in known:
                    if deadline is not None and time.monotonic() > deadline and any(e.step_ms for e in results.entries):
                        results.stopped = "stopped by --seconds"
                        messages.line(f"{results.stopped}; what was measured is kept")
                        break
                    messages.point(str(case))
                    began = time.monotonic()
                    entry = Entry.of(case, run_case(case, case_seconds))
                    results.entries.append(entry)
                    messages.line(_told(entry, time.monotonic() - began))
                    results.write(path)
                    path.with_suffix(".md").write_text(markdown(results))  # also if this process is killed
                messages.done()
    except KeyboardInterrupt:
        results.stopped = "stopped by Ctrl-C"
        raise
    finally:
        if results.entries:
            publish(results, path, markdown(results), draw)


def _told(entry: Entry, seconds: float) -> str:
    if entry.status != "timed":
        return f"  {entry.status}: {entry.why} ({seconds:.0f} s)"
    mfu = "" if entry.mfu is None else f"  MFU {entry.mfu:.1%}"
    return (
        f"  {entry.step_ms:10.2f} ms a step  {entry.tokens_per_sec:12,.0f} tokens/s{mfu}  {entry.peak_gib:6.2f} GiB  "
        f"first step {entry.first_step_seconds:.1f} s  ({seconds:.0f} s in all)"
    )


def _check(given: dict[str, Any]) -> None:
    """Raise ValueError for settings that cannot be."""
    for name in ("config", "batch", "seq_len"):
        if not given[name]:
            raise ValueError(f"{name}: expected one at least.")
    for name in ("batch", "seq_len"):
        if any(value < 1 for value in given[name]):
            raise ValueError(f"{name}: expected numbers of at least 1, got {list(given[name])}.")
    if len(given["batch"]) not in (1, len(given["seq_len"])):
        raise ValueError(
            f"batch: {len(given['batch'])} numbers for {len(given['seq_len'])} of seq_len; expected one, or as many."
        )
    for name in ("steps", "warmup", "check_tokens", "seconds", "case_seconds"):
        if given[name] is not None and given[name] <= 0:
            raise ValueError(f"{name} must be above 0, got {given[name]}.")
    if given["precision"] not in get_args(Precision):
        raise ValueError(f"precision: {given['precision']!r}, expected one of {', '.join(get_args(Precision))}.")
    check_recompute(given["recompute"])
    check_run(given["device"], given["resume"], given["overwrite"])

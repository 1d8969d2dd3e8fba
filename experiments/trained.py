"""Trainings by `python cli.py fit`, each in a process with a time limit, and what their curves say."""

import os
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from lit_t6.bench.training.process import wait_for
from lit_t6.data import prepare_corpus

CHECKOUT = Path(__file__).parents[1]
LOG_CHARACTERS = 4000
"""How much of the end of a failed process's output is shown."""
_WORDS = 6000
_DOCUMENTS, _WORDS_A_DOCUMENT = 600, 1000


def synthetic_data(folder: Path) -> Path:
    """Prepared data of words that are drawn, frequent and rare ones as in a language; the same each time.

    Args:
        folder: to make it in.
    """
    drawn = random.Random(0)
    words = ["".join(drawn.choices("etaoinshrdlucmfw", k=drawn.randint(2, 9))) for _ in range(_WORDS)]
    weights = [1 / (rank + 3) for rank in range(_WORDS)]
    texts = folder / "texts"
    texts.mkdir()
    for number in range(_DOCUMENTS):
        text = " ".join(drawn.choices(words, weights, k=_WORDS_A_DOCUMENT))
        (texts / f"{number:04}.txt").write_text(text)
    prepare_corpus([texts], folder / "data", vocab_size=384, validation_fraction=0.01)
    return folder / "data"


def run_cli(words: Sequence[str], log: Path, seconds: float, variables: Mapping[str, str]) -> dict[str, Any]:
    """Run `python cli.py` of this checkout.

    Args:
        words: behind it.
        log: where its output goes.
        seconds: it may take; then it is killed.
        variables: of its environment, over those of this process.

    Returns:
        Nothing if it ended well; else `status` "failed", `why`, and `log`, the end of its output.
    """
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}
    with log.open("wb") as output:
        status = wait_for([sys.executable, str(CHECKOUT / "cli.py"), *words], environment, output, seconds, CHECKOUT)
    if status == 0:
        return {}
    why = f"it took longer than {seconds:.0f} s" if status is None else f"it ended with status {status}"
    return {"status": "failed", "why": why, "log": log.read_text(errors="replace")[-LOG_CHARACTERS:]}


def figures(folder: Path, warmup: int) -> dict[str, Any]:
    """What the curves of a run say.

    Args:
        folder: of the run.
        warmup: steps whose speed does not count: compilation, allocation.
    """
    events = EventAccumulator(str(folder)).Reload()
    tags = ("train/loss", "optim/grad_norm", "perf/tokens_per_sec", "perf/step_ms", "memory/peak_gib")
    by_tag = {tag: {event.step + 1: event.value for event in events.Scalars(tag)} for tag in tags}

    def settled(tag: str) -> float | None:
        """Median of the records that begin after the warm-up, if there are any."""
        steps = sorted(by_tag[tag])
        counted = [by_tag[tag][step] for before, step in zip([0, *steps], steps, strict=False) if before >= warmup]
        return statistics.median(counted) if counted else None

    return {
        "tokens_per_sec": settled("perf/tokens_per_sec"),
        "step_ms": settled("perf/step_ms"),
        "peak_gib": max(by_tag["memory/peak_gib"].values()),
        "losses": by_tag["train/loss"],
        "grad_norms": by_tag["optim/grad_norm"],
    }

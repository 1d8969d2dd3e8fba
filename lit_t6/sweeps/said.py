"""What the output of a training says of its end."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = re.compile(
    r"^Out of memory: |do not fit into the memory|CUDA out of memory|DefaultCPUAllocator|^MemoryError", re.M
)
DIVERGED = re.compile(r"^error: .*\bstep ([\d,]+): loss .*The step was not taken", re.M)
SAVED = re.compile(r"\bSaved .* after step ([\d,]+);")
_TAIL_BYTES = 20_000


def tail(path: Path, start: int) -> str:
    """The end of an output.

    Args:
        path: of its file.
        start: byte at which that of this training begins.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def last_error(text: str) -> str:
    """The last line of an output that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (told or lines or [""])[-1][:1000]


def with_step(found: Mapping[str, Any], pattern: re.Pattern[str], text: str) -> Mapping[str, Any]:
    """What a training wrote last, at the step that its output names; the figures may be of an earlier one.

    Args:
        found: what it wrote.
        pattern: of a line with a step.
        text: of the output.
    """
    steps = pattern.findall(text)
    return {**found, "step": int(steps[-1].replace(",", ""))} if steps else found

"""What the numbers of a benchmark depend on, and the file that keeps them."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

VERSIONS = ("lit-t6", "torch", "triton")


def facts(
    device: str, files: Mapping[str, Path] | None = None, packages: Sequence[str] = VERSIONS, program: str = "cli.py"
) -> dict[str, Any]:
    """What numbers depend on: `same` must be the same of all numbers in a table.

    Args:
        device: where it runs.
        files: the authors', which have no version: their SHA-256 is told.
        packages: whose versions are told; "triton" must be among them.
        program: what Python runs.
    """
    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    same: dict[str, Any] = {"torch": torch.__version__, "triton": versions["triton"]}
    if torch.device(device).type == "cuda":
        same |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    else:
        same["device"] = f"CPU {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (files or {}).values()}
    return {
        "same": same,
        "versions": versions | {"python": platform.python_version()},
        "commands": [f"python {program} {shlex.join(sys.argv[1:])}"],
        "upstream_sha256": hashes,
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def write_json(path: Path, whole: dict[str, Any]) -> None:
    """Write a file; what was there is replaced at once or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(partial, path)


def check_same(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Check that what was measured before may stand beside what will be.

    Args:
        path: where it was written, for the message.
        theirs: its settings and facts.
        ours: those of this run.

    Raises:
        ValueError: the first difference.
    """
    for name, value in json.loads(json.dumps(ours)).items():
        if theirs.get(name) != value:
            raise ValueError(
                f"{path} was measured with {name} {theirs.get(name)!r}, this is {value!r}: numbers of both cannot "
                "stand in one table. Choose another --output."
            )


def check_device(device: str) -> None:
    """Raise ValueError unless a device can be measured.

    Raises:
        ValueError: it has another name than cuda, cuda:1 … or cpu, or there is no GPU.
    """
    kind = device.partition(":")[0]
    if kind not in ("cuda", "cpu"):
        raise ValueError(f"device: {device!r}, expected cuda, cuda:1 … or cpu.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {device!r}, but PyTorch sees no GPU here; --device cpu measures on the CPU.")


def check_run(device: str, resume: bool, overwrite: bool) -> None:
    """Raise ValueError unless a device can be measured, and what is there is kept or replaced.

    Raises:
        ValueError: see `check_device`; or both were asked for.
    """
    check_device(device)
    if resume and overwrite:
        raise ValueError("resume keeps the results that overwrite would replace: choose one.")


class Writable(Protocol):
    """Results that are kept in a file."""

    def write(self, path: Path) -> None:
        """Write all of it."""

    def take_up(self, path: Path) -> None:
        """Go on from what was written."""


def open_results(results: Writable, file: Path, resume: bool, overwrite: bool) -> Path:
    """Make the folder of results, and go on from what is there if that was asked for.

    Args:
        results: still empty.
        file: where they will be, `~` in it or not.
        resume: go on from the file.
        overwrite: replace it.

    Returns:
        The file.

    Raises:
        ValueError: the file is there and neither was asked for, or it is of other settings.
    """
    path = file.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and resume:
        results.take_up(path)
    elif path.exists() and not overwrite:
        raise ValueError(f"{path} is there: --resume true adds to it, --overwrite true replaces it.")
    return path


def publish(results: Writable, path: Path, table: str, draw: Callable[[Any, Path], Any]) -> None:
    """Write the file, the table and the figure beside it, and print the table.

    Args:
        results: of a run.
        path: of the file.
        table: in Markdown.
        draw: makes the figure.
    """
    results.write(path)
    path.with_suffix(".md").write_text(table)
    draw(results, path.with_suffix(".png"))
    print(f"\n{table}\nwritten: {path}, {path.stem}.md, {path.stem}.png")

"""What the numbers of a benchmark depend on, and the file that keeps them."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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

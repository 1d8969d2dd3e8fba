"""Whether a study goes on with the data that it was begun with, wherever that lies now."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from lit_t6.whole_files import replace_text

CONFIG_NAME = "config.yaml"
"""Where `fit` keeps the options of a run."""
DATA_NAME = "data.json"
"""In the folder of a study: fingerprints of its data. Where there is none, the data has to stay where it was."""
ALL = ""
"""What stands for the cells that do not say themselves where their data lies."""


@dataclass(frozen=True)
class Prepared:
    """Data that was found.

    Args:
        fingerprint: of what it is.
        path: where it lies.
    """

    fingerprint: str
    path: str


def recorded(folder: Path) -> dict[str, str]:
    """Fingerprints of the data of a study's cells; none if they were not written down when it was begun."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / DATA_NAME).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def record(known: Mapping[str, str], folder: Path) -> None:
    """Keep fingerprints in the folder of a study, for who cannot ask its storage.

    Raises:
        OSError: they cannot be written.
    """
    if known and known != recorded(folder):
        replace_text(folder / DATA_NAME, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def say_place(folder: Path, path: str) -> None:
    """Have the folder of a trial say where its data lies now: `fit` takes up a run of the same options alone.

    Args:
        folder: of the trial; nothing is done where nothing was trained yet.
        path: of the same data.

    Raises:
        OSError: it cannot be written.
    """
    file = folder / CONFIG_NAME
    with suppress(FileNotFoundError, yaml.YAMLError):
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(said, dict) and isinstance(data := said.get("data"), dict) and data.get("path") != path:
            text = yaml.safe_dump({**said, "data": {**data, "path": path}}, sort_keys=False, allow_unicode=True)
            replace_text(file, text)


def check_same_data(known: Mapping[str, str], found: Mapping[str, Prepared], name: str) -> None:
    """Refuse other data than a study was begun with.

    Args:
        known: fingerprints that were written down, by cell.
        found: what would be trained on now, by cell.
        name: of the study.

    Raises:
        ValueError: it is other data; says whose, and where it lies.
    """
    for cell, data in found.items():
        if known.get(cell, data.fingerprint) != data.fingerprint:
            whose = f"cell {cell!r}: " if cell != ALL else ""
            raise ValueError(
                f"{whose}{data.path}: is other data than the study {name!r} was begun with: its text, its tokenizer or "
                f"its shards are others. Say where the same data lies, with --options.data.path, or give the study "
                f"another name, with --name."
            )

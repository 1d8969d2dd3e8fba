"""What lies in a folder of prepared data: `manifest.json`, written by `prepare`, read by everything else."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"
FORMAT = 1


@dataclass
class ShardInfo:
    """One shard: its file name, its tokens, and the SHA-256 of the file."""

    file: str
    tokens: int
    sha256: str


@dataclass
class SplitInfo:
    """One split. `bytes` are those of the documents' UTF-8 text; end-of-text tokens are in `tokens` only."""

    documents: int
    tokens: int
    bytes: int
    shards: list[ShardInfo]


@dataclass
class Manifest:
    """The whole folder.

    Args:
        tokenizer_sha256: SHA-256 of the tokenizer.json beside it.
        vocab_size: tokens of the tokenizer.
        end_of_text: id of the token that precedes every document.
        splits: "train", "validation" and perhaps "test".
        settings: what `prepare` was asked for, to tell whether it is up to date.
        format: version of this description.
    """

    tokenizer_sha256: str
    vocab_size: int
    end_of_text: int
    splits: dict[str, SplitInfo]
    settings: dict[str, Any]
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """What tells this data from other data, wherever it lies and whatever it was prepared from."""
        plain = {key: value for key, value in asdict(self).items() if key != "settings"}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, folder: Path) -> None:
        """Write the description into `folder`."""
        (folder / MANIFEST_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: str | Path) -> Manifest:
    """Read the description of a folder of prepared data.

    Raises:
        ValueError: no such folder, no manifest in it, or one of another format.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file() and (Path(folder).is_file() or any(Path(folder).glob("*"))):
        raise ValueError(
            f"{folder}: no prepared data here ({MANIFEST_NAME} is missing). If this is the text, make it with "
            f"`python cli.py prepare {folder} --output data/mine`, and set --data.path data/mine."
        )
    if not path.is_file():
        raise ValueError(
            f"{folder}: no prepared data here ({MANIFEST_NAME} is missing). Make it with "
            f"`python cli.py prepare TEXT --output {folder}`, or set --data.path."
        )
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.get("format") != FORMAT:
            raise ValueError(f"format {plain.get('format')}, expected {FORMAT}")
        splits = {
            name: SplitInfo(**{**split, "shards": [ShardInfo(**shard) for shard in split["shards"]]})
            for name, split in plain["splits"].items()
        }
        return Manifest(**{**plain, "splits": splits})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a manifest that this version reads ({error}).") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Documents from text files, JSONL files and folders of them, packed or not."""

import bz2
import gzip
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

TEXT_SUFFIXES = (".txt", ".md")
JSONL_SUFFIXES = (".jsonl", ".ndjson")
_OPENERS: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


def _kind(path: Path) -> str:
    """The suffix that says what a file holds, without that of its packing."""
    return Path(path.stem).suffix.lower() if path.suffix in _OPENERS else path.suffix.lower()


def find_files(inputs: Sequence[str | Path]) -> list[Path]:
    """Text and JSONL files named by `inputs`, those of folders sorted by path.

    Args:
        inputs: files (any name; JSONL is told by .jsonl or .ndjson, all else is text) and folders, searched to any
            depth for .txt, .md, .jsonl and .ndjson, each also with .gz, .xz or .bz2.

    Raises:
        ValueError: an input that does not exist, a folder without such files, no inputs, or a Parquet file.
    """
    known = TEXT_SUFFIXES + JSONL_SUFFIXES
    files: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p) in known)
            if not inside:
                others = _count_suffixes(_others(path))
                holds = f" It holds {others}." if others else ""
                raise ValueError(
                    f"{path}: no text in this folder; looked for {', '.join(known)}, packed or not.{holds}"
                )
            files += inside
        elif path.is_file():
            if _kind(path) == ".parquet":
                raise ValueError(f"{path}: Parquet is not read; convert it to JSONL first.")
            files.append(path)
        else:
            raise ValueError(f"{path}: no such file or folder.")
    if not files:
        raise ValueError("no input: name at least one text file, JSONL file or folder.")
    return files


def describe_left_out(inputs: Sequence[str | Path]) -> str:
    """What `find_files` passes over in the folders among `inputs`, and why; empty if it passes over nothing."""
    left_out = [path for folder in map(Path, inputs) if folder.is_dir() for path in _others(folder)]
    if not left_out:
        return ""
    known = ", ".join(TEXT_SUFFIXES + JSONL_SUFFIXES)
    return (
        f"Left out {_count_suffixes(left_out)}: of a folder {known} are read, packed or not. A file named by itself is "
        f"read as text, whatever its suffix."
    )


def _others(folder: Path) -> list[Path]:
    known = TEXT_SUFFIXES + JSONL_SUFFIXES
    return [path for path in folder.rglob("*") if path.is_file() and _kind(path) not in known]


def _count_suffixes(paths: Sequence[Path]) -> str:
    """Such as "3 files (2 .pdf, 1 .py)", the most frequent first."""
    kinds = Counter(_kind(path) or "without a suffix" for path in paths)
    each = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
    return f"{len(paths):,} file{'' if len(paths) == 1 else 's'} ({each})" if paths else ""


def _parse_line(path: Path, number: int, line: str, text_key: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
    text = record.get(text_key) if isinstance(record, dict) else None
    if not isinstance(text, str):
        found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"{path}, line {number}: expected text under the key {text_key!r}, found {found}.")
    return text


def iterate_documents(files: Sequence[Path], text_key: str = "text", *, keep_blank: bool = False) -> Iterator[str]:
    """Every document: one a text file, one a line of a JSONL file.

    Args:
        files: from `find_files`.
        text_key: the JSONL field that holds the text.
        keep_blank: those too that are blank.

    Raises:
        ValueError: naming file and line: text that is not UTF-8, a line that is not JSON or lacks `text_key`.
    """
    for path in files:
        opener = _OPENERS.get(path.suffix, open)
        try:
            with opener(path, "rt", encoding="utf-8", newline="") as file:
                documents: Iterator[str]
                if _kind(path) in JSONL_SUFFIXES:
                    documents = (_parse_line(path, n, line, text_key) for n, line in enumerate(file, 1) if line.strip())
                else:
                    documents = iter((file.read(),))
                yield from (document for document in documents if keep_blank or document.strip())
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
        except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            raise ValueError(f"{path}: cannot be read: damaged, or not packed as its name says ({error}).") from error

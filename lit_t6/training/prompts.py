"""Prompts from a file."""

from pathlib import Path

from lit_t6.data.sources import JSONL_SUFFIXES, iterate_documents


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a file.

    Args:
        path: JSON lines (.jsonl or .ndjson) with the text under "prompt", or a text file with a prompt a line, blank
            lines left out; each also with .gz, .xz or .bz2.

    Raises:
        ValueError: no such file, one without prompts, or one that cannot be read, with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file of prompts; expected one prompt a line, or JSON lines.")
    prompts = list(iterate_documents([path], text_key="prompt", keep_blank=True))
    if not any(suffix.lower() in JSONL_SUFFIXES for suffix in path.suffixes):
        lines = (line.removesuffix("\r") for text in prompts for line in text.split("\n"))
        prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{path}: holds no prompt; expected one a line.")
    return prompts

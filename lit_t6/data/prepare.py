"""text → tokenizer → shards, split by document: what `python cli.py prepare` does."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from lit_t6.data.manifest import MANIFEST_NAME, TOKENIZER_NAME, Manifest, ShardInfo, SplitInfo, file_hash, read_manifest
from lit_t6.data.progress import progress_bar
from lit_t6.data.shards import ShardWriter
from lit_t6.data.sources import describe_left_out, find_files, iterate_documents
from lit_t6.data.tokenizer import (
    check_vocab_size,
    encode_documents,
    end_of_text_id,
    load_tokenizer,
    token_num_bytes,
    train_tokenizer,
)

SPLITS = ("train", "validation", "test")


@dataclass
class _Survey:
    """What a first look at the documents found: one hash a document, and the bytes of all."""

    hashes: list[bytes]
    num_bytes: int


def _survey(documents: Iterable[str], seed: int) -> _Survey:
    survey = _Survey([], 0)
    for document in progress_bar(documents, desc="reading", unit=" documents"):
        text = document.encode()
        survey.hashes.append(
            hashlib.blake2b(text, digest_size=8, salt=seed.to_bytes(8, "little", signed=True)).digest()
        )
        survey.num_bytes += len(text)
    return survey


def assign_splits(hashes: Sequence[bytes], validation_fraction: float, test_fraction: float) -> list[str]:
    """The split of every document, by the rank of its hash: as many as the fractions say, rounded up.

    Documents with one hash, exact copies, go the same way, so that no text is on both sides; where copies stand at a
    border, the numbers are a little off.

    Args:
        hashes: one a document.
        validation_fraction: share of the documents.
        test_fraction: share of the documents.

    Returns:
        "train", "validation" or "test" for each.

    Raises:
        ValueError: fractions out of range, nothing left to train on, or a split that was asked for stays empty.
    """
    _check_fractions(validation_fraction, test_fraction)
    ordered = sorted(hashes)
    num_validation = -(-len(ordered) * validation_fraction // 1)
    num_test = -(-len(ordered) * test_fraction // 1)
    if num_validation + num_test >= len(ordered):
        raise ValueError(
            f"{len(ordered)} documents are too few for validation_fraction={validation_fraction} and "
            f"test_fraction={test_fraction}: nothing is left to train on. Give more documents or lower the fractions."
        )
    below_validation = ordered[int(num_validation)]
    below_test = ordered[int(num_validation + num_test)]
    splits = ["validation" if h < below_validation else "test" if h < below_test else "train" for h in hashes]
    for name, wanted in (("validation", num_validation), ("test", num_test)):
        if wanted and name not in splits:
            raise ValueError(
                f"the {name} split stays empty: the {len(hashes)} documents are mostly copies of each other."
            )
    return splits


def cut_single_document(document: str, pieces: int = 40) -> list[str]:
    """Cut one text at line ends into pieces of about equal length, so that it can be split by document.

    Raises:
        ValueError: it has too few lines.
    """
    lines = document.splitlines(keepends=True)
    if len(lines) < 2:
        raise ValueError(
            "the input is a single document of a single line: there is nothing to keep for validation. Give several "
            "files, a JSONL file with one document a line, or a text of several lines."
        )
    share = len(document) / min(pieces, len(lines))
    cut, length = [""], 0
    for line in lines:
        if length >= len(cut) * share:
            cut.append("")
        cut[-1] += line
        length += len(line)
    return cut


def _present(output: Path, files: Sequence[Path]) -> Manifest | None:
    """What an earlier call left in `output`, or None where there is nothing.

    Raises:
        ValueError: something else is there, which must not be replaced.
    """
    inside = next((path for path in files if path.resolve().is_relative_to(output.resolve())), None)
    if inside is not None:
        raise ValueError(f"{output}: holds the input {inside}; choose another folder for the prepared data.")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / MANIFEST_NAME).is_file():
        raise ValueError(f"{output}: exists, and was not made by prepare; choose another folder.")
    return read_manifest(output)


def _check_fractions(validation_fraction: float, test_fraction: float) -> None:
    for name, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise ValueError(f"{name} must be in [0, 1), got {fraction}.")


def prepare_corpus(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    vocab_size: int = 16384,
    tokenizer: str | Path | None = None,
    text_key: str = "text",
    validation_fraction: float = 0.05,
    test_fraction: float = 0.0,
    seed: int = 0,
    shard_tokens: int = 100_000_000,
    tokenizer_bytes: int = 500_000_000,
    overwrite: bool = False,
) -> Manifest:
    """Turn text into token shards that training reads.

    The result is a folder with `tokenizer.json`, shards in llm.c's format and `manifest.json`. It appears whole or not
    at all: everything is written beside it first. Called again with the same inputs and settings, it does nothing.

    Args:
        inputs: text files (a document each), JSONL files (a document a line), or folders of them; .gz, .xz and .bz2
            are unpacked on the fly. A single text is cut at line ends into 40 documents.
        output: the folder to make.
        vocab_size: tokens of the byte-level BPE to train. Not read when `tokenizer` is given.
        tokenizer: an existing byte-level `tokenizer.json` to use instead of training one.
        text_key: the JSONL field that holds the text.
        validation_fraction: share of the documents kept for validation, rounded up.
        test_fraction: share of the documents kept for `python cli.py test`, rounded up.
        seed: of the choice of documents for the splits.
        shard_tokens: tokens a shard file.
        tokenizer_bytes: the tokenizer learns from about this many bytes of training text, spread evenly.
        overwrite: replace what lies in `output`.

    Returns:
        The description of what lies in `output`.

    Raises:
        ValueError: missing or unreadable inputs, an empty corpus, too few documents for the fractions, a tokenizer
            that is not byte-level, or an `output` that holds something else.
    """
    output = Path(output)
    for name, value in (("shard_tokens", shard_tokens), ("tokenizer_bytes", tokenizer_bytes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    _check_fractions(validation_fraction, test_fraction)
    files = find_files(inputs)
    if left_out := describe_left_out(inputs):
        print(left_out)
    bpe = load_tokenizer(tokenizer) if tokenizer else None
    if bpe is None:
        check_vocab_size(vocab_size)
    settings: dict[str, object] = {
        "inputs": [{"file": path.name, "bytes": path.stat().st_size, "sha256": file_hash(path)} for path in files],
        "vocab_size": None if tokenizer else vocab_size,
        "tokenizer": file_hash(Path(tokenizer)) if tokenizer else None,
        "text_key": text_key,
        "validation_fraction": validation_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "shard_tokens": shard_tokens,
        "tokenizer_bytes": None if tokenizer else tokenizer_bytes,
    }
    present = _present(output, files)
    if present is not None and not overwrite:
        if present.settings == settings:
            print(f"{output} is up to date.")
            return present
        changed = ", ".join(key for key in settings if settings[key] != present.settings.get(key))
        raise ValueError(
            f"{output}: holds data prepared otherwise ({changed} differ). Choose another folder, or pass --overwrite "
            f"true to replace what is there."
        )

    def documents() -> Iterator[str]:
        return iterate_documents(files, text_key)

    with _partial(output) as partial:
        survey = _survey(documents(), seed)
        if not survey.hashes:
            raise ValueError(f"the corpus is empty: no text in {', '.join(map(str, inputs))}.")
        if len(survey.hashes) == 1:
            pieces = cut_single_document(next(documents()))
            print(f"One document only: cut at line ends into {len(pieces)}.")
            survey = _survey(pieces, seed)

            def documents() -> Iterator[str]:
                return iter(pieces)

        splits = assign_splits(survey.hashes, validation_fraction, test_fraction)
        if bpe is None:
            stride = max(1, -(-survey.num_bytes // tokenizer_bytes))
            bpe = train_tokenizer(
                (
                    d
                    for n, (d, split) in enumerate(zip(documents(), splits, strict=True))
                    if split == "train" and n % stride == 0
                ),
                vocab_size,
            )
            if (size := bpe.get_vocab_size()) < vocab_size:
                print(
                    f"Vocabulary: {size:,} tokens, not the {vocab_size:,} asked for: each word of the text to learn "
                    f"from is a token by then, so that nothing is left to join. More text gives more tokens."
                )
        manifest = _write_folder(partial, bpe, documents(), splits, survey.num_bytes, shard_tokens, settings)
        replaced = output.with_name(output.name + ".replaced")
        if output.exists():
            os.replace(output, replaced)
        os.replace(partial, output)
        shutil.rmtree(replaced, ignore_errors=True)
    return manifest


@contextmanager
def _partial(output: Path) -> Iterator[Path]:
    """A folder beside `output` to write into; where none can be made, that is told before the long work."""
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"{output}: cannot be made ({error.strerror}); choose another folder.") from error
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_folder(
    folder: Path,
    tokenizer: Tokenizer,
    documents: Iterable[str],
    splits: Sequence[str],
    num_bytes: int,
    shard_tokens: int,
    settings: dict[str, object],
) -> Manifest:
    """Tokenize every document into its split's shards and describe them."""
    end_of_text = np.array([end_of_text_id(tokenizer)])
    bytes_of = token_num_bytes(tokenizer)
    writers = {name: ShardWriter(folder, name, len(bytes_of), shard_tokens) for name in SPLITS if name in splits}
    totals = {name: SplitInfo(0, 0, 0, []) for name in writers}
    with progress_bar(total=num_bytes, desc="tokenizing", unit="B", unit_scale=True) as bar:
        for split, (document, tokens) in zip(splits, encode_documents(tokenizer, documents), strict=True):
            size = len(document.encode())
            if int(bytes_of[tokens].sum()) != size:
                raise ValueError(
                    f"the tokenizer changes text (a normalizer or an added space), so that bits per byte would be "
                    f"wrong: the document {document[:40]!r} has {size:,} bytes, its tokens stand for "
                    f"{int(bytes_of[tokens].sum()):,}. Use a plain byte-level tokenizer."
                )
            writers[split].add(np.concatenate((end_of_text, tokens)))
            total = totals[split]
            total.documents += 1
            total.tokens += 1 + len(tokens)
            total.bytes += size
            bar.update(size)
    for name, writer in writers.items():
        totals[name].shards = [ShardInfo(path.name, count, file_hash(path)) for path, count in writer.close()]
    tokenizer.save(str(folder / TOKENIZER_NAME))
    manifest = Manifest(file_hash(folder / TOKENIZER_NAME), len(bytes_of), int(end_of_text[0]), totals, settings)
    manifest.write(folder)
    return manifest

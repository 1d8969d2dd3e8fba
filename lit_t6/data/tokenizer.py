"""Byte-level BPE through `tokenizers`: training, loading, and the bytes that each token stands for."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
_END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")


def check_vocab_size(vocab_size: int) -> None:
    """Raise ValueError where a vocabulary is too small for the 256 bytes and the end-of-text token."""
    if vocab_size < 257:
        raise ValueError(f"vocab_size={vocab_size}: a byte-level vocabulary needs at least 257 tokens.")


def train_tokenizer(documents: Iterable[str], vocab_size: int, *, show_progress: bool = True) -> Tokenizer:
    """Train a byte-level BPE, able to write any text.

    Args:
        documents: texts to learn from.
        vocab_size: tokens, the 256 bytes and the end-of-text token counted.
        show_progress: draw the library's progress bar, if the standard error is a terminal.

    Raises:
        ValueError: a vocabulary too small for the 256 bytes and the end-of-text token.
    """
    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=show_progress and sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(documents, trainer=trainer)
    return tokenizer


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        ValueError: no such file, or not a tokenizer.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such tokenizer file; expected a tokenizer.json.")
    return parse_tokenizer(path.read_text(encoding="utf-8"), str(path))


def parse_tokenizer(text: str, name: str = "tokenizer") -> Tokenizer:
    """A tokenizer from the text of its `tokenizer.json`.

    Raises:
        ValueError: not a tokenizer; `name` says which.
    """
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception for whatever is wrong with the text
        raise ValueError(f"{name}: not a tokenizer of the tokenizers library ({error}).") from error


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """Id of the token that stands between documents.

    Raises:
        ValueError: the tokenizer has none under a known name.
    """
    for name in _END_OF_TEXT_NAMES:
        token_id = tokenizer.token_to_id(name)
        if token_id is not None:
            return token_id
    raise ValueError(
        f"the tokenizer has no end-of-text token: expected one of {', '.join(_END_OF_TEXT_NAMES)} in its vocabulary."
    )


def _printable_bytes() -> dict[str, int]:
    """The byte that each letter of a byte-level token stands for.

    Printable bytes stand for themselves, the others for the code points from 256 on, in order; that is how GPT-2's
    vocabulary writes bytes as text.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(hidden)}


def token_num_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """How many bytes of text each token stands for, (V,) int32; special tokens stand for none.

    Raises:
        ValueError: the tokenizer is not byte-level, so that a token's bytes cannot be told by the token alone.
    """
    letters = _printable_bytes()
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    counts = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), dtype=np.int32)
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        if token_id in special:
            continue
        if not all(letter in letters for letter in token):
            raise ValueError(
                f"token {token_id} ({token!r}) is not written in bytes: only byte-level BPE tokenizers are supported, "
                f"as those of GPT-2 and Llama 3, because bits per byte need the bytes of every token."
            )
        counts[token_id] = len(token)
    return counts


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text, which is taken as text even where it spells a special token."""
    return encode_batch(tokenizer, [text])[0]


def encode_batch(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of several texts, as `encode_text`; the library's threads share them."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    finally:
        tokenizer.encode_special_tokens = before


def encode_documents(
    tokenizer: Tokenizer, documents: Iterable[str], batch_characters: int = 1_000_000
) -> Iterator[tuple[str, np.ndarray]]:
    """Each document with its token ids, int64; they go to the library in batches of about `batch_characters`."""
    waiting: list[str] = []
    characters = 0

    def flush() -> Iterator[tuple[str, np.ndarray]]:
        for document, ids in zip(waiting, encode_batch(tokenizer, waiting), strict=True):
            yield document, np.asarray(ids, dtype=np.int64)
        waiting.clear()

    for document in documents:
        waiting.append(document)
        characters += len(document)
        if characters >= batch_characters:
            yield from flush()
            characters = 0
    yield from flush()

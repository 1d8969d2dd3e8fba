"""Text from a model, piece by piece: one prompt or a batch of them."""

from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from lit_t6.data.tokenizer import encode_batch, end_of_text_id
from lit_t6.model import SamplingConfig, StepMode, T6Model


class StopFilter:
    """Lets text through up to the first stop string, however the text is cut into pieces.

    The end of what has come is held back for as long as it may be the beginning of a stop string.

    Args:
        stop: the stop string or strings; of several, the one that is complete first counts.

    Raises:
        ValueError: an empty stop string.
    """

    def __init__(self, stop: str | Sequence[str] = ()) -> None:
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self.stop:
            raise ValueError("stop: an empty string would stop every text before it begins; leave it out.")
        self.stopped = False
        self._held = ""

    def push(self, piece: str) -> str:
        """What is now known to stand before any stop string, `piece` having come."""
        text = self._held + piece
        ends = [(start + len(stop), start) for stop in self.stop if (start := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        held = max((_overlap(text, stop) for stop in self.stop), default=0)
        released, self._held = text[: len(text) - held], text[len(text) - held :]
        return released

    def flush(self) -> str:
        """What was held back, no more text being to come."""
        released, self._held = self._held, ""
        return released


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class Completion:
    """The text of one row, made of its tokens as they come, in pieces of whole characters.

    Args:
        tokenizer: of the tokens.
        end_of_text: the token that ends the text.
        stop: string or strings that end it; neither they nor what follows belong to it.
    """

    def __init__(self, tokenizer: Tokenizer, end_of_text: int, stop: str | Sequence[str] = ()) -> None:
        self.text = ""
        self.num_tokens = 0
        """Tokens drawn for the text; those of a stop string count, the end-of-text token does not."""
        self.ended = False
        self._tokenizer, self._end_of_text = tokenizer, end_of_text
        self._decoder, self._filter = DecodeStream(skip_special_tokens=True), StopFilter(stop)

    def add(self, token: int) -> str:
        """The text that the next token makes known; empty if the text has ended, or if it is not yet a character."""
        if self.ended:
            return ""
        if token == self._end_of_text:
            return self.close()
        self.num_tokens += 1
        released = self._filter.push(self._decoder.step(self._tokenizer, token) or "")
        self.ended = self._filter.stopped
        self.text += released
        return released

    def close(self) -> str:
        """The text that was held back, no more tokens being to come."""
        self.ended = True
        released = self._filter.flush()
        self.text += released
        return released


class TextStream(Iterable[tuple[int, str]]):
    """The continuations of a batch of prompts: iterating once gives (row, piece of its text) as pieces become known.

    Each row ends by itself: at end-of-text, at a stop string, or at `max_new_tokens`.

    Args:
        model: in the mode in which it is to run.
        tokenizer: of its data.
        prompts: a text a row; each begins a document. Of one that is longer than the model's `max_seq_len` the last
            tokens are read.
        max_new_tokens: tokens to add to each at most.
        sampling: how they are drawn; the default `SamplingConfig` if not given.
        seed: of the drawing, one for the batch.
        stop: string or strings at which a text ends: neither they nor what follows belong to it.
        step: how a token is computed; see `lit_t6.model.StepMode`.

    Raises:
        ValueError: no prompts, an empty stop string, a tokenizer without end-of-text, or of more tokens than the model.
    """

    def __init__(
        self,
        model: T6Model,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        max_new_tokens: int,
        sampling: SamplingConfig | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        step: StepMode = "auto",
    ) -> None:
        size, known = tokenizer.get_vocab_size(), model.config.vocab_size
        if size > known:
            raise ValueError(f"the tokenizer has {size} tokens and the model knows {known}: it is not the model's.")
        end_of_text = end_of_text_id(tokenizer)
        ids = [[end_of_text, *row] for row in encode_batch(tokenizer, prompts)]
        self.num_unread = [max(0, len(row) - model.config.max_seq_len) for row in ids]
        """Tokens of each prompt that the model does not see: the first ones."""
        self.completions = [Completion(tokenizer, end_of_text, stop) for _ in prompts]
        """The texts so far."""
        self._generation = model.generate(ids, max_new_tokens, sampling, seed, end_of_text, step)
        self.cache = self._generation.cache
        """What the model keeps of the rows."""

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for new in self._generation:
            for row, token in enumerate(new.tolist()):
                piece = self.completions[row].add(token)
                if piece:
                    yield row, piece
            if all(completion.ended for completion in self.completions):
                return
        for row, completion in enumerate(self.completions):
            piece = completion.close()
            if piece:
                yield row, piece


def stream_text(
    model: T6Model,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    sampling: SamplingConfig | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
) -> Iterator[str]:
    """The continuation of one prompt, in pieces of whole characters as they become known; arguments as `TextStream`."""
    for _, piece in TextStream(model, tokenizer, [prompt], max_new_tokens, sampling, seed, stop):
        yield piece


def generate_texts(
    model: T6Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    sampling: SamplingConfig | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
) -> list[str]:
    """The continuation of each prompt, computed as one batch; arguments as `TextStream`."""
    stream = TextStream(model, tokenizer, prompts, max_new_tokens, sampling, seed, stop)
    for _ in stream:
        pass
    return [completion.text for completion in stream.completions]

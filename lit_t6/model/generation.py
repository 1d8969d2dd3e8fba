"""Continuing prompts with a language model, a token at a time, each computed once.

Letters: B batch, T positions, C model width, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_t6.model.decode_step import DecodeStep, DecodingModel, StepMode
from lit_t6.model.sampling import SamplingConfig, sample

Prompts = Tensor | Sequence[Tensor] | Sequence[Sequence[int]]


class Generation(Iterator[Tensor]):
    """An iterator over the next token of each row, (B,) int64 on the model's device.

    The model sees a window of each row's tokens, of `context` at most: of a longer prompt its last ones. When a row's
    window is full, the next token opens a new one, of the last half (rounded up): the cache is then computed again,
    with the whole windows of the rows that are not full. What a row sees depends on that row alone.

    Args:
        model: what computes; without gradients, and in the mode that it is in.
        prompts: integer ids, (B, T), or one sequence a row, of any lengths from 1.
        max_new_tokens: how many tokens to yield for each row.
        sampling: how they are drawn.
        context: tokens that the model sees at most, from 1.
        seed: of the drawing, one for the batch; null takes the global random state.
        end_token: a row that has yielded it is finished and goes on yielding it; when all rows are, the iteration
            ends. Null for none.
        step: how a step runs; see `StepMode`.

    Raises:
        ValueError: no prompts, an empty one, one that is no sequence of ids of the model, or a negative
            `max_new_tokens`, or a `step` that cannot be.
    """

    def __init__(
        self,
        model: DecodingModel,
        prompts: Prompts,
        max_new_tokens: int,
        sampling: SamplingConfig,
        context: int,
        seed: int | None = None,
        end_token: int | None = None,
        step: StepMode = "auto",
    ) -> None:
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be at least 0, got {max_new_tokens}.")
        rows = [row[-context:] for row in _as_rows(prompts)]
        _check_ids(rows, model.config.vocab_size)
        # The last token drawn is never read.
        needed = max(len(row) for row in rows) + max(max_new_tokens - 1, 0)
        self.cache = model.new_cache(len(rows), min(context, needed))
        """What the model keeps of the rows."""
        self._step = DecodeStep(model, self.cache, step)
        device = self.cache.device
        self.finished = torch.zeros(len(rows), dtype=torch.bool, device=device)
        """(B,): rows that have yielded the end token."""
        self._model, self._sampling, self._context, self._end_token = model, sampling, context, end_token
        self._left = max_new_tokens
        self._generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        self._windows = [row.to(device, torch.int64) for row in rows]  # as of when the cache was last filled
        self._since: list[Tensor] = []  # tokens drawn since, each (B,)

    @torch.no_grad()
    def __next__(self) -> Tensor:
        if not self._left or (self._end_token is not None and self.finished.all()):
            raise StopIteration
        self._left -= 1
        if self._since and self.cache.longest < self._context:
            logits = self._step(self._since[-1])
        else:
            if self._since:
                self._open_new_windows()
            logits = self._model.head(self._fill_cache())
        new = sample(logits, self._sampling, self._generator)
        if self._end_token is not None:
            new = new.masked_fill(self.finished, self._end_token)
            self.finished |= new == self._end_token
        self._since.append(new)
        return new

    def _fill_cache(self) -> Tensor:
        """Compute all windows in one pass; hidden states (B, C) of the last token of each."""
        lengths = [len(window) for window in self._windows]
        self.cache.reset()
        # Padding stands on the right, where no real token sees it, and is forgotten at once.
        hidden = self._model.hidden_states(pad_sequence(self._windows, batch_first=True), cache=self.cache)
        if min(lengths) < max(lengths):
            self.cache.truncate(lengths)
        rows, last = torch.tensor([range(len(lengths)), [length - 1 for length in lengths]], device=hidden.device)
        return hidden[rows, last]

    def _open_new_windows(self) -> None:
        half = (self._context + 1) // 2
        drawn, self._since = torch.stack(self._since, dim=1), []
        for row, finished in enumerate(self.finished.tolist()):
            window = torch.cat((self._windows[row], drawn[row]))
            if finished:
                window = window[-1:]  # nobody reads what it says: take little room
            elif len(window) > self._context:
                window = window[-half:]
            self._windows[row] = window


def _check_ids(rows: list[Tensor], vocab_size: int) -> None:
    for number, row in enumerate(rows, 1):
        lowest, highest = (int(end) for end in row.aminmax())
        if lowest < 0 or highest >= vocab_size:
            raise ValueError(
                f"prompt {number} holds the id {lowest if lowest < 0 else highest}; the model knows 0 to "
                f"{vocab_size - 1}. Is the prompt of another tokenizer?"
            )


def _as_rows(prompts: Prompts) -> list[Tensor]:
    rows = [torch.as_tensor(row) for row in prompts]
    if not rows:
        raise ValueError("there are no prompts: give at least one.")
    for number, row in enumerate(rows, 1):
        if row.ndim != 1:
            raise ValueError(
                f"prompts: expected a tensor (B, T) or one sequence of ids a row, got an entry of shape "
                f"{tuple(row.shape)}; for one prompt pass tokens[None], or [ids]."
            )
        if not len(row):
            raise ValueError(
                f"prompt {number} is empty: give at least one token, for example the tokenizer's end-of-text."
            )
        if row.is_floating_point() or row.is_complex() or row.dtype == torch.bool:
            raise ValueError(f"prompt {number} is of type {row.dtype}, expected integer ids.")
    return rows

"""Text from a model, piece by piece."""

from collections.abc import Iterator

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from lit_t6.data.tokenizer import encode_text, end_of_text_id
from lit_t6.model import SamplingConfig, T6Model


def stream_text(
    model: T6Model, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, sampling: SamplingConfig, seed: int | None
) -> Iterator[str]:
    """The continuation of a prompt, in pieces of whole characters as they become known; ends at end-of-text."""
    end_of_text = end_of_text_id(tokenizer)
    ids = [end_of_text, *encode_text(tokenizer, prompt)]
    device = model.embedding.weight.device
    decoder = DecodeStream(skip_special_tokens=True)
    for token in model.generate(torch.tensor([ids], device=device), max_new_tokens, sampling, seed):
        if int(token) == end_of_text:
            return
        piece = decoder.step(tokenizer, int(token))
        if piece:
            yield piece

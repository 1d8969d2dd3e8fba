"""Text from a checkpoint: what `python cli.py generate` does."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from lit_t6.data import load_tokenizer, parse_tokenizer
from lit_t6.data.tokenizer import end_of_text_id
from lit_t6.model import SamplingConfig, T6Model
from lit_t6.training.module import LitT6


def load_checkpoint(path: str | Path, device: str = "cpu") -> tuple[T6Model, Tokenizer | None]:
    """The model of a checkpoint, ready to evaluate, and the tokenizer that it was trained with, if it holds one.

    Raises:
        ValueError: no such file, or not a checkpoint of LitT6.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such checkpoint.")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if "hyper_parameters" not in checkpoint or "config" not in checkpoint["hyper_parameters"]:
        raise ValueError(f"{path}: not a checkpoint of LitT6: it does not say what model it holds.")
    data_state = checkpoint.get("TokenDataModule", {})
    tokenizer = parse_tokenizer(data_state["tokenizer"], str(path)) if "tokenizer" in data_state else None
    model = LitT6.load_from_checkpoint(path, map_location="cpu", weights_only=True).model
    return model.to(device).eval(), tokenizer


def stream_text(
    model: T6Model, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, sampling: SamplingConfig, seed: int | None
) -> Iterator[str]:
    """The continuation of a prompt, in pieces of whole characters as they become known; ends at end-of-text."""
    end_of_text = end_of_text_id(tokenizer)
    ids = [end_of_text, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    device = model.embedding.weight.device
    decoder = DecodeStream(skip_special_tokens=True)
    for token in model.generate(torch.tensor([ids], device=device), max_new_tokens, sampling, seed):
        if int(token) == end_of_text:
            return
        piece = decoder.step(tokenizer, int(token))
        if piece:
            yield piece


def generate_text(
    ckpt_path: str,
    prompt: str = "",
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 0.95,
    seed: int | None = None,
    tokenizer: str | None = None,
    device: str = "auto",
) -> str:
    """Continue a prompt with a trained model, and print the text as it comes.

    Args:
        ckpt_path: checkpoint that `fit` wrote.
        prompt: the text to go on from; empty starts a new document.
        max_new_tokens: tokens to add at most.
        temperature: divides the logits; 0 takes the likeliest token each time.
        top_k: draw among this many likeliest tokens only.
        top_p: draw among the fewest likeliest tokens whose probabilities reach this sum.
        seed: of the drawing, to get the same text again.
        tokenizer: a tokenizer.json, for a checkpoint that holds none.
        device: where to run: cpu, cuda, cuda:1, …; auto takes a GPU if there is one.

    Returns:
        Prompt and continuation.

    Raises:
        ValueError: no such checkpoint, no tokenizer, or settings out of range.
    """
    sampling = SamplingConfig(temperature, top_k, top_p)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model, own_tokenizer = load_checkpoint(ckpt_path, device)
    bpe = load_tokenizer(tokenizer) if tokenizer else own_tokenizer
    if bpe is None:
        raise ValueError(f"{ckpt_path}: holds no tokenizer; pass --tokenizer with the tokenizer.json of its data.")
    text = prompt
    sys.stdout.write(prompt)
    for piece in stream_text(model, bpe, prompt, max_new_tokens, sampling, seed):
        text += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return text

"""Text from a checkpoint: what `python cli.py generate` does."""

import sys

import torch

from lit_t6.data import load_tokenizer
from lit_t6.model import SamplingConfig
from lit_t6.training.checkpoint import read_checkpoint
from lit_t6.training.streaming import stream_text


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
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={device}: PyTorch {torch.__version__} sees no GPU here; use --device cpu.")
    checkpoint = read_checkpoint(ckpt_path)
    bpe = load_tokenizer(tokenizer) if tokenizer else checkpoint.tokenizer()
    if bpe is None:
        raise ValueError(f"{ckpt_path}: holds no tokenizer; pass --tokenizer with the tokenizer.json of its data.")
    model = checkpoint.model(device)
    text = prompt
    sys.stdout.write(prompt)
    for piece in stream_text(model, bpe, prompt, max_new_tokens, sampling, seed):
        text += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return text

"""Text from a checkpoint: what `python cli.py generate` does."""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tokenizers import Tokenizer

from lit_t6.data import load_tokenizer
from lit_t6.training.places import check_output
from lit_t6.training.prompts import read_prompts

if TYPE_CHECKING:  # what loads PyTorch and Lightning is imported where text is made: the help does not wait for it
    from lit_t6.model import T6Model
    from lit_t6.training.streaming import TextStream

Step = Literal["auto", "eager", "graph", "compile"]
"""`lit_t6.model.StepMode`, which loads PyTorch."""


def generate_text(
    ckpt_path: str,
    prompt: str = "",
    prompts_file: str | None = None,
    num_samples: int = 1,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 0.95,
    stop: str | list[str] = "",
    seed: int | None = None,
    batch_size: int | None = None,
    output: str | None = None,
    overwrite: bool = False,
    tokenizer: str | None = None,
    device: str = "auto",
    step: Step = "auto",
) -> str:
    """Continue prompts with a trained model, and print the text as it comes.

    All rows (prompts times samples) are computed together; their texts are printed in order. Speed and the size of
    the cache follow on stderr. Of a prompt longer than the model's context the last tokens are read, and stderr says
    how many are not.

    Args:
        ckpt_path: checkpoint that `fit` or `convert` wrote.
        prompt: the text to go on from; empty starts a new document.
        prompts_file: several prompts instead, a line each; .jsonl and .ndjson hold objects with a "prompt".
        num_samples: continuations of each prompt.
        max_new_tokens: tokens to add to each at most.
        temperature: divides the logits; 0 takes the likeliest token each time.
        top_k: draw among this many likeliest tokens only.
        top_p: draw among the fewest likeliest tokens whose probabilities reach this sum.
        stop: a string, or a list as in '["\\n\\n", "###"]': a text ends before it, as it does at end-of-text.
        seed: of the drawing, to get the same text again with the same rows and batches.
        batch_size: rows to compute together at most; null for all.
        output: a JSONL file to write too, a line for each text: prompt, completion, tokens (how many were drawn).
        overwrite: replace `output` if it is there.
        tokenizer: a tokenizer.json, for a checkpoint that holds none; to one that does, no other is taken.
        device: where to run: cpu, cuda, cuda:1, …; auto takes a GPU if there is one.
        step: how a token is computed: eager (kernel by kernel), graph (one CUDA graph), compile (a graph of compiled
            blocks: some 20 seconds at first, then the fastest); auto is graph on a GPU, eager on a CPU.

    Returns:
        What was printed: prompts and continuations.

    Raises:
        ValueError: no such checkpoint or file, no tokenizer or a wrong one, an `output` that exists, or settings out of
            range.
    """
    for name, value, least in (
        ("num_samples", num_samples, 1),
        ("max_new_tokens", max_new_tokens, 1),
        ("batch_size", 1 if batch_size is None else batch_size, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    if prompts_file and prompt:
        raise ValueError("--prompt and --prompts_file are both given: put the prompt into the file, or leave one out.")
    from lit_t6.model import SamplingConfig
    from lit_t6.training.streaming import StopFilter, TextStream

    sampling = SamplingConfig(temperature, top_k, top_p)
    StopFilter(stop or ())  # what cannot be is said before the model is loaded
    if output:
        check_output(output, "--output", "texts.jsonl", overwrite)
    if step == "compile":
        from lit_t6.training.compile_cache import keep_compiled_code

        keep_compiled_code()
    prompts = read_prompts(prompts_file) if prompts_file else [prompt]
    model, bpe = _load(ckpt_path, tokenizer, device)
    rows = [text for text in prompts for _ in range(num_samples)]
    titles = [f"prompt {p}, sample {s}" for p in range(1, len(prompts) + 1) for s in range(1, num_samples + 1)]
    size = batch_size or len(rows)
    printer, lines, num_tokens, largest = _Printer(goes_on=bool(output)), [], 0, 0
    began = time.perf_counter()
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        # With one seed for all batches, samples of a prompt in two of them would be the same.
        stream = TextStream(
            model, bpe, batch, max_new_tokens, sampling, None if seed is None else seed + first, stop or (), step
        )
        for title, unread in zip(titles[first:], stream.num_unread, strict=False):
            if unread:
                context = model.config.max_seq_len
                _tell(f"{title}: the first {unread:,} tokens are not read: the model sees {context:,} at most.")
        printer.show(stream, batch, titles[first : first + size] if len(rows) > 1 else [""])
        for text, completion in zip(batch, stream.completions, strict=True):
            lines.append({"prompt": text, "completion": completion.text, "tokens": completion.num_tokens})
            num_tokens += completion.num_tokens
        if stream.cache.nbytes > largest:
            largest, held = stream.cache.nbytes, stream.cache
    seconds = time.perf_counter() - began
    if output:
        _write_lines(Path(output), lines)
    _tell(
        f"{num_tokens:,} tokens in {seconds:.2f} s, {num_tokens / seconds:,.1f} tokens/s; cache: "
        f"{held.bytes_per_token:,} bytes a token, {largest:,} bytes for {held.batch_size:,} × {held.capacity:,} tokens"
    )
    return printer.text.removesuffix("\n")


def stop_strings(typed: str) -> list[str]:
    """What `--stop` means: a list of strings if it is one in JSON, else one string, brackets and all."""
    try:
        plain = json.loads(typed)
    except ValueError:
        plain = None
    is_list = isinstance(plain, list) and all(isinstance(item, str) for item in plain)
    return plain if is_list else [typed]


def _load(ckpt_path: str, tokenizer: str | None, device: str) -> tuple["T6Model", Tokenizer]:
    import torch

    from lit_t6.training.checkpoint import read_checkpoint

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device={device}: expected auto, cpu, cuda or one of several, such as cuda:1.")
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={device}: PyTorch {torch.__version__} sees no GPU here; use --device cpu.")
    checkpoint = read_checkpoint(ckpt_path)
    bpe = load_tokenizer(tokenizer) if tokenizer else checkpoint.tokenizer()
    if bpe is None:
        raise ValueError(f"{ckpt_path}: holds no tokenizer; pass --tokenizer with the tokenizer.json of its data.")
    if tokenizer:
        checkpoint.check_tokenizer(bpe, tokenizer)
    return checkpoint.model(device), bpe


class _Printer:
    """Prints texts in order, the first that has not ended as it comes; `text` is all that was printed.

    Args:
        goes_on: also where nobody reads them any more, since they go elsewhere too.
    """

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on
        self.text = ""

    def show(self, stream: "TextStream", prompts: Sequence[str], titles: Sequence[str]) -> None:
        """Run a stream to its end; an empty title prints no header."""
        pieces = iter(stream)
        for prompt, title, completion in zip(prompts, titles, stream.completions, strict=True):
            blank = "\n" if self.text else ""
            self._write((f"{blank}=== {title} ===\n" if title else "") + prompt)
            printed = 0
            while True:
                self._write(completion.text[printed:])
                printed = len(completion.text)
                if completion.ended:
                    break
                next(pieces, None)  # of whichever row: the others keep their texts until it is their turn
            self._write("\n")

    def _write(self, text: str) -> None:
        self.text += text
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            if not self.goes_on:
                raise


def _tell(line: str) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    print(line, file=sys.stderr)


def _write_lines(path: Path, lines: Sequence[dict[str, object]]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    partial.replace(path)

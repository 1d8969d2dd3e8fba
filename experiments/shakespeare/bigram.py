"""The yardstick: an interpolated bigram model over tokens (Jelinek and Mercer, 1980).

P(w | v) = λ · count(v, w) / count(v) + (1 - λ) · P(w), with add-one unigrams. λ is the best for the very text that is
scored, which flatters the bigram.

Letters: V vocabulary, N scored pairs.
"""

import math
from dataclasses import dataclass

import numpy as np

from lit_t6.data import EvaluationDataset, TokenWindows


@dataclass
class BigramScore:
    """Nats a token and bits a byte of the scored text, and the weight λ of the bigram."""

    loss: float
    bits_per_byte: float
    weight: float


def count_bigrams(windows: TokenWindows, vocab_size: int) -> np.ndarray:
    """How often each token follows each, (V, V), over every adjacent pair of the split."""
    counts = np.zeros(vocab_size * vocab_size, dtype=np.int64)
    for start in range(0, len(windows), 1024):
        tokens = windows.read(range(start, min(start + 1024, len(windows))))
        before, after = tokens[:, :-1], tokens[:, 1:]
        inside = after >= 0
        counts += np.bincount(before[inside] * vocab_size + after[inside], minlength=counts.size)
    return counts.reshape(vocab_size, vocab_size)


def score_bigram(training: TokenWindows, held_out: EvaluationDataset, vocab_size: int) -> BigramScore:
    """Count on one split, score the targets of another: the same targets that a model is validated on."""
    counts = count_bigrams(training, vocab_size)
    followed, seen = counts.sum(axis=1), counts.sum(axis=0)
    unigram = (seen + 1) / (seen.sum() + vocab_size)

    before, after, num_bytes = [], [], 0
    for start in range(0, len(held_out), 1024):
        batch = held_out[list(range(start, min(start + 1024, len(held_out))))]
        counted = batch["targets"] >= 0
        before.append(batch["tokens"][counted].numpy())
        after.append(batch["targets"][counted].numpy())
        num_bytes += int(batch["target_bytes"].sum())
    v, w = np.concatenate(before), np.concatenate(after)  # (N,)

    bigram = counts[v, w] / np.maximum(followed[v], 1)
    candidates = np.arange(0.02, 1.0, 0.02)
    nats = [-np.log(weight * bigram + (1 - weight) * unigram[w]).sum() for weight in candidates]
    best = int(np.argmin(nats))
    return BigramScore(nats[best] / len(w), nats[best] / (math.log(2) * num_bytes), float(candidates[best]))

"""How much memory a training takes: counted from weights and from what one short forward pass keeps."""

from dataclasses import replace

import torch
from torch import Tensor

from lit_t6.model import T6Config, T6Model
from lit_t6.ops.linear_cross_entropy.chunks import MAX_BYTES, MIN_TOKENS
from lit_t6.training.planning.fit_reader import FitSettings

EXPLANATION = (
    "weights, gradients and two moments of AdamW in float32, and what one layer keeps of a token for the way back, "
    "counted in a forward pass of a short sequence, times layers and tokens of a batch"
)
_LENGTHS = (32, 64)
_VOCABULARY = 64


def memory_of(settings: FitSettings) -> float:
    """Bytes of tensors on a device at a training's peak, about a tenth too low on a GPU.

    Args:
        settings: of the training.
    """
    model = settings.model
    half = "16" in settings.precision and "true" not in settings.precision
    weights = model.num_parameters() * (16 + 2 * half + 4 * (int(settings.trainer["devices"]) > 1))
    layer, rest = kept_per_token(model, half)
    number = 2 if "16" in settings.precision else 4
    width = model.d_model * number
    read = model.attention.heads() * model.attention.value_size * number
    kept_layer = {"none": layer, "selective": 2 * width + read, "full": width}[settings.recompute]
    tokens = settings.data["batch_size"] * settings.seq_len
    kept = tokens * (model.num_layers * kept_layer + rest + (layer if settings.recompute != "none" else 0))
    row = model.vocab_size * 4
    logits = min(tokens * row, max(MAX_BYTES, MIN_TOKENS * row)) * 2  # and their gradients
    return weights + kept + logits


def kept_per_token(model: T6Config, half: bool) -> tuple[float, float]:
    """Bytes of a token that a layer, and all besides the layers, keep for the way back.

    Args:
        model: its head count known.
        half: activations are of 16 bits.
    """
    small = replace(model, vocab_size=_VOCABULARY, num_layers=2, max_seq_len=max(model.max_seq_len, _LENGTHS[-1]))
    with torch.random.fork_rng(devices=[]):
        network = T6Model(small)
    two = _kept_per_token(network, half)
    network.blocks = network.blocks[:1]
    one = _kept_per_token(network, half)
    return two - one, 2 * one - two


def _kept_per_token(network: T6Model, half: bool) -> float:
    """Bytes of a token; what is kept of weights, such as their roundings, is the same for any length."""
    short, long = _LENGTHS
    return (_kept(network, long, half) - _kept(network, short, half)) / (long - short)


def _kept(network: T6Model, length: int, half: bool) -> int:
    """Bytes that a forward pass over one sequence keeps, weights apart."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    tokens = torch.zeros(1, length, dtype=torch.long)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half), hooks:
        network.loss(tokens, tokens)
    return sum(storage.nbytes() for storage in kept.values())

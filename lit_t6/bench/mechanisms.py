"""What each mechanism keeps of a token, random inputs of a decode step, and what the step must give.

Letters: B batch, M cached tokens, H query heads, G key/value heads, D head size, E size of values, R ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from lit_t6.attention.cache import FactorCache, LatentCache
from lit_t6.bench.grid import Point
from lit_t6.ops import Impl, TPAFactors, cached_attention, tpa_decode

Inputs = dict[str, Tensor]
LATENT, ROPE = 512, 64
"""MLA: features of the latent and of the rotated key that all heads share."""
_CHUNK = 2**30
"""Bytes of keys in float64 at a time."""


class Mechanism(ABC):
    """A kind of attention.

    Args:
        name: such as "GQA".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def why_not(self, point: Point) -> str | None:
        """Why there is no such attention at a point; None if there is."""
        return None

    @abstractmethod
    def numbers_per_token(self, point: Point) -> int:
        """Numbers that are cached of a token of one sequence, without padding."""

    def cache_bytes(self, point: Point) -> int:
        """Bytes of the whole cache, without padding: what a step must read."""
        return self.numbers_per_token(point) * point.itemsize * point.cache * point.batch

    def needed_bytes(self, point: Point, sets: int) -> int:
        """Memory for some sets of inputs and to compute what they must give."""
        return sets * self.cache_bytes(point) * 17 // 16 + self.workspace(point)

    @abstractmethod
    def workspace(self, point: Point) -> int:
        """Memory that `exact` takes besides the inputs, about."""

    @abstractmethod
    def draw(self, point: Point, generator: torch.Generator) -> Inputs:
        """Fresh random inputs: zeros would be faster than data."""

    @abstractmethod
    def exact(self, point: Point, inputs: Inputs) -> Tensor:
        """The result (B, H, E), computed in float64."""

    @abstractmethod
    def reference(self, point: Point, inputs: Inputs) -> Tensor:
        """The result (B, H, E), computed by the specification in the type of the inputs."""


class TensorProduct(Mechanism):
    """TPA: `a_q` (B, 1, Rq, H), `b_q` (B, 1, Rq, D), and a `FactorCache` with the others, (B, M, R, ·).

    The cache's rows are padded to 16 bytes, as decoding keeps them.
    """

    def numbers_per_token(self, point: Point) -> int:
        return (point.ranks[1] + point.ranks[2]) * (point.num_heads + point.head_dim)

    def workspace(self, point: Point) -> int:
        rank_q, rank_k, _ = point.ranks
        numbers = self.numbers_per_token(point) + 2 * rank_q * rank_k * (point.num_heads + 1) + 6 * point.num_heads
        return 8 * numbers * point.cache  # a sequence at a time

    def draw(self, point: Point, generator: torch.Generator) -> Inputs:
        rank_q, rank_k, rank_v = point.ranks
        heads, size = point.num_heads, point.head_dim
        shapes = {"a_k": (rank_k, heads), "b_k": (rank_k, size), "a_v": (rank_v, heads), "b_v": (rank_v, size)}
        cache = FactorCache(shapes, point.batch, point.cache, point.torch_dtype, point.device)
        queries = {
            "a_q": torch.empty(point.batch, 1, rank_q, heads, **point.kind),
            "b_q": torch.empty(point.batch, 1, rank_q, size, **point.kind),
        }
        return {name: x.normal_(generator=generator) for name, x in (queries | cache.buffers).items()}

    def exact(self, point: Point, inputs: Inputs) -> Tensor:
        return _by_sequence(inputs, lambda row: decode_factors(_double(row), "reference"))

    def reference(self, point: Point, inputs: Inputs) -> Tensor:
        return _by_sequence(inputs, lambda row: decode_factors(row, "reference"))


class Dense(Mechanism):
    """MHA, MQA and GQA: `q` (B, H, D), `k` and `v` (B, G, M, D), packed; head h reads key head h // (H / G).

    Args:
        name: of the mechanism.
        num_kv_heads: G at a point.
    """

    def __init__(self, name: str, num_kv_heads: Callable[[Point], int]) -> None:
        super().__init__(name)
        self.num_kv_heads = num_kv_heads

    def why_not(self, point: Point) -> str | None:
        groups = self.num_kv_heads(point)
        return f"{point.num_heads} heads are no multiple of {groups}" if point.num_heads % groups else None

    def numbers_per_token(self, point: Point) -> int:
        return 2 * self.num_kv_heads(point) * point.head_dim

    def workspace(self, point: Point) -> int:
        keys = 8 * self.num_kv_heads(point) * self.key_size(point) * point.cache
        return 3 * min(keys, _CHUNK) + 8 * 4 * point.num_heads * point.cache

    def draw(self, point: Point, generator: torch.Generator) -> Inputs:
        kept = (point.batch, self.num_kv_heads(point), point.cache, point.head_dim)
        shapes = {"q": (point.batch, point.num_heads, point.head_dim), "k": kept, "v": kept}
        return {name: torch.randn(shape, generator=generator, **point.kind) for name, shape in shapes.items()}

    def scale(self, point: Point) -> float:
        """Of the logits."""
        return float(point.head_dim**-0.5)

    def key_size(self, point: Point) -> int:
        """Features of a key."""
        return point.head_dim

    def exact(self, point: Point, inputs: Inputs) -> Tensor:
        q, k, v = inputs["q"], inputs["k"], inputs["v"]
        groups = k.shape[1]
        queries = q.unflatten(1, (groups, -1)).double() * self.scale(point)  # (B, G, H/G, D)
        out = queries.new_empty(*queries.shape[:-1], v.shape[-1])
        step = max(1, _CHUNK // (8 * point.cache * k.shape[-1]))  # key heads at a time
        for row, first in product(range(len(q)), range(0, groups, step)):
            part = slice(first, first + step)
            weights = (queries[row, part] @ k[row, part].double().mT).softmax(dim=-1)
            out[row, part] = weights @ v[row, part].double()
        return out.flatten(1, 2)

    def reference(self, point: Point, inputs: Inputs) -> Tensor:
        def attend(row: Inputs) -> Tensor:
            v = self._values(row)
            k = row["k"].transpose(1, 2)
            return cached_attention(row["q"][:, None], k, v, scale=self.scale(point), impl="reference")[:, 0]

        return _by_sequence(inputs, attend)

    @staticmethod
    def _values(inputs: Inputs) -> Tensor | int:
        """What `cached_attention` takes for the values: (B, M, G, E), or E where keys begin with them."""
        return inputs["v"].transpose(1, 2)


class Latent(Dense):
    """MLA, its up-projections absorbed: `q` (B, H, 576), `k` (B, 1, M, 576), whose first 512 features are `v`."""

    def __init__(self) -> None:
        super().__init__("MLA", lambda point: 1)

    def numbers_per_token(self, point: Point) -> int:
        return LATENT + ROPE

    def draw(self, point: Point, generator: torch.Generator) -> Inputs:
        q = torch.randn(point.batch, point.num_heads, LATENT + ROPE, generator=generator, **point.kind)
        cache = LatentCache({"latent": (LATENT + ROPE,)}, point.batch, point.cache, point.torch_dtype, point.device)
        k = cache.buffers["latent"].normal_(generator=generator)[:, None]
        return {"q": q, "k": k, "v": k[..., :LATENT]}

    def scale(self, point: Point) -> float:
        return float((point.head_dim + ROPE) ** -0.5)

    def key_size(self, point: Point) -> int:
        return LATENT + ROPE

    @staticmethod
    def _values(inputs: Inputs) -> Tensor | int:
        return LATENT


def decode_factors(inputs: Inputs, impl: Impl) -> Tensor:
    """`tpa_decode` of inputs of TPA, (B, H, E).

    Args:
        inputs: the six factors, by name.
        impl: which implementation.
    """
    return tpa_decode(*(inputs[name] for name in TPAFactors._fields), zero_padding=True, impl=impl)[:, 0]


def _by_sequence(inputs: Inputs, attend: Callable[[Inputs], Tensor]) -> Tensor:
    """One sequence at a time, so that what is formed in between fits."""
    rows = len(next(iter(inputs.values())))
    return torch.cat([attend({name: x[row : row + 1] for name, x in inputs.items()}) for row in range(rows)])


def _double(inputs: Inputs) -> Inputs:
    return {name: x.double() for name, x in inputs.items()}


MECHANISMS: dict[str, Mechanism] = {
    "TPA": TensorProduct("TPA"),
    "MQA": Dense("MQA", lambda point: 1),
    "GQA": Dense("GQA", lambda point: point.kv_groups),
    "MHA": Dense("MHA", lambda point: point.num_heads),
    "MLA": Latent(),
}

"""What this package decodes with."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lit_t6.bench.grid import Point
from lit_t6.bench.mechanisms import Dense, Inputs, Latent, Mechanism, decode_factors
from lit_t6.bench.peers.base import Peer, not_on_gpu
from lit_t6.bench.timing import Call
from lit_t6.ops import Impl, cached_attention
from lit_t6.ops.implementation import HAS_TRITON

OURS = "lit_t6"


class FlashTPA(Peer):
    """`lit_t6.ops.tpa_decode`: its kernel on a GPU, the reference elsewhere."""

    strict = True

    def __init__(self, mechanism: Mechanism) -> None:
        super().__init__(OURS, "", mechanism)

    def why_not(self, point: Point) -> str | None:
        return "Triton is not installed" if point.on_gpu and not HAS_TRITON else None

    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        impl: Impl = "triton" if point.on_gpu else "reference"
        return [partial(decode_factors, inputs, impl, _lengths(point)) for inputs in sets]


def _lengths(point: Point) -> Tensor:
    """(B,), of a cache, which counts its tokens itself."""
    return torch.full((point.batch,), point.cache, dtype=torch.int64, device=point.device)


class OurDense(Peer):
    """`lit_t6.ops.cached_attention`, the kernel with which this package decodes MHA, MQA, GQA and MLA."""

    strict = True

    def __init__(self, mechanism: Dense) -> None:
        super().__init__(OURS, "kernel", mechanism)
        self.copies = mechanism.name not in ("MQA", "MLA")  # with one key head all layouts are one

    def why_not(self, point: Point) -> str | None:
        return not_on_gpu(point) or (None if HAS_TRITON else "Triton is not installed")

    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        assert isinstance(self.mechanism, Dense)
        scale, shared = self.mechanism.scale(point), isinstance(self.mechanism, Latent)
        lengths = _lengths(point)

        def layout(x: Tensor) -> Tensor:
            """(B, G, M, D) → (B, M, G, D), as the package's caches lie: its strides do not change with M."""
            return x[:, 0, :, None] if x.shape[1] == 1 else x.transpose(1, 2).contiguous()

        def call(inputs: Inputs) -> Call:
            q, k = inputs["q"][:, None], layout(inputs["k"])
            v = inputs["v"].shape[-1] if shared else layout(inputs["v"])
            return lambda: cached_attention(q, k, v, lengths=lengths, scale=scale, impl="triton")[:, 0]

        return [call(inputs) for inputs in sets]

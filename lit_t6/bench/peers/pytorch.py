"""PyTorch's own attention over cached keys and values, through every backend.

Letters: B batch, M cached tokens, H query heads, G key/value heads, D and E sizes of keys and of values.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_t6.bench.grid import Point
from lit_t6.bench.mechanisms import Dense, Inputs
from lit_t6.bench.peers.base import Peer, not_on_gpu
from lit_t6.bench.timing import Call

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
LARGEST_HEAD = {"flash": 256, "cuDNN": 256}
LAYOUTS = ("grouped", "enable_gqa")
"""Heads that share a key head as further queries of it, (B, G, H/G, D), or as PyTorch's own grouping, (B, H, 1, D)."""


class Fused(Peer):
    """`scaled_dot_product_attention` of one query, without a mask.

    Args:
        mechanism: with keys and values.
        backend: a key of `BACKENDS`.
        layout: one of `LAYOUTS`.
    """

    def __init__(self, mechanism: Dense, backend: str, layout: str) -> None:
        super().__init__("torch", backend if layout == "grouped" else f"{backend}, {layout}", mechanism)
        self.backend, self.layout = backend, layout

    def why_not(self, point: Point) -> str | None:
        assert isinstance(self.mechanism, Dense)
        if not point.on_gpu and self.backend != "flash":
            return not_on_gpu(point)
        if self.layout == "enable_gqa" and self.mechanism.num_kv_heads(point) == point.num_heads:
            return "no heads are grouped"
        size, limit = self.mechanism.key_size(point), LARGEST_HEAD.get(self.backend, 10**6)
        return f"heads of {size}, {limit} at most" if size > limit else None

    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        assert isinstance(self.mechanism, Dense)
        scale, grouped = self.mechanism.scale(point), self.layout == "grouped"

        def call(inputs: Inputs) -> Call:
            q, k, v = queries(inputs, grouped), inputs["k"], inputs["v"]

            def attend() -> Tensor:
                with sdpa_kernel(BACKENDS[self.backend]):
                    return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=not grouped)

            return attend

        return [call(inputs) for inputs in sets]


class Products(Peer):
    """Two matrix products and a softmax between them."""

    def __init__(self, mechanism: Dense) -> None:
        super().__init__("torch", "products", mechanism)

    def why_not(self, point: Point) -> str | None:
        return None

    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        assert isinstance(self.mechanism, Dense)
        scale = self.mechanism.scale(point)

        def call(inputs: Inputs) -> Call:
            q, k, v = (x.flatten(0, 1) for x in (queries(inputs, grouped=True), inputs["k"], inputs["v"]))
            nothing = q.new_empty(1, 1, 1)  # is not read where beta is 0
            return lambda: torch.baddbmm(nothing, q, k.mT, beta=0, alpha=scale).softmax(dim=-1) @ v

        return [call(inputs) for inputs in sets]


class Flex(Peer):
    """`flex_attention`, compiled for every shape; elsewhere than on a GPU not compiled, and its name says so.

    Args:
        mechanism: with keys and values.
        compiled: whether it is.
    """

    preparing_seconds = 45

    def __init__(self, mechanism: Dense, compiled: bool = True) -> None:
        super().__init__("flex", "" if compiled else "not compiled", mechanism)
        self.compiled = compiled

    def why_not(self, point: Point) -> str | None:
        if self.compiled:
            return not_on_gpu(point)
        return "compiled on a GPU" if point.on_gpu else None

    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        from torch.nn.attention.flex_attention import flex_attention

        assert isinstance(self.mechanism, Dense)
        scale = self.mechanism.scale(point)
        torch.compiler.reset()  # one function is compiled for few shapes only, then runs uncompiled
        attend: Callable[..., Tensor] = flex_attention
        if self.compiled:
            attend = torch.compile(flex_attention, dynamic=False, fullgraph=True)

        def call(inputs: Inputs) -> Call:
            q, k, v = queries(inputs, grouped=False), inputs["k"], inputs["v"]
            gqa = q.shape[1] != k.shape[1]
            return lambda: attend(q, k, v, scale=scale, enable_gqa=gqa)

        return [call(inputs) for inputs in sets]


def queries(inputs: Inputs, grouped: bool) -> Tensor:
    """(B, G, H/G, D) or (B, H, 1, D)."""
    q = inputs["q"]
    return q.unflatten(1, (inputs["k"].shape[1], -1)) if grouped else q[:, :, None]

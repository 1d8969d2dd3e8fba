"""FlashInfer's decoding, where it is installed. It compiles its kernels at their first use, for minutes.

Letters: B batch, M cached tokens, H query heads, G key/value heads, D head size.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from lit_t6.bench.grid import Point
from lit_t6.bench.mechanisms import LATENT, ROPE, Dense, Inputs, Latent
from lit_t6.bench.peers.base import Peer, not_on_gpu
from lit_t6.bench.timing import Call

PAGE = 16
"""Tokens of a page."""
WORKSPACE = 512 * 2**20
"""Bytes for what parts of the cache give before they are merged."""
CUDA_CORE_GROUPS = (1, 2, 4, 8)
"""H / G for which there are kernels without tensor cores."""


class _FlashInfer(Peer):
    def why_not(self, point: Point) -> str | None:
        if problem := not_on_gpu(point):
            return problem
        if find_spec("flashinfer") is None:
            return "flashinfer is not installed"
        if point.dtype == "float32":
            return "no kernels for float32"
        return f"{point.cache:,} tokens are no whole pages of {PAGE}" if point.cache % PAGE else None


class FlashInferDecode(_FlashInfer):
    """`BatchDecodeWithPagedKVCacheWrapper`, each sequence's pages one after the other.

    Args:
        mechanism: with keys and values.
        tensor_cores: whether it uses them; else every query head reads its keys for itself.
    """

    def __init__(self, mechanism: Dense, tensor_cores: bool) -> None:
        super().__init__("flashinfer", "" if tensor_cores else "without tensor cores", mechanism)
        self.tensor_cores = tensor_cores
        self.copies = mechanism.name not in ("MQA", "MLA")  # with one key head all layouts are one

    def why_not(self, point: Point) -> str | None:
        assert isinstance(self.mechanism, Dense)
        group = point.num_heads // self.mechanism.num_kv_heads(point)
        if not self.tensor_cores and group not in CUDA_CORE_GROUPS:
            return f"{group} heads share a key head; there are kernels for {', '.join(map(str, CUDA_CORE_GROUPS))}"
        return super().why_not(point)

    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        import flashinfer

        groups, size = sets[0]["k"].shape[1], point.head_dim
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            _workspace(point), "NHD", use_tensor_cores=self.tensor_cores
        )
        offsets, pages = _pages(point)
        wrapper.plan(
            offsets,
            pages,
            torch.full((point.batch,), PAGE, dtype=torch.int32, device=point.device),
            point.num_heads,
            groups,
            size,
            PAGE,
            q_data_type=point.torch_dtype,
            kv_data_type=point.torch_dtype,
        )

        def call(inputs: Inputs) -> Call:
            kept = tuple(inputs[name].transpose(1, 2).reshape(-1, PAGE, groups, size) for name in ("k", "v"))
            return lambda: wrapper.run(inputs["q"], kept)

        return [call(inputs) for inputs in sets]


class FlashInferLatent(_FlashInfer):
    """`BatchMLAPagedAttentionWrapper`: FlashAttention 3 on Hopper GPUs, else 2."""

    copies = True

    def __init__(self, mechanism: Latent) -> None:
        super().__init__("flashinfer", "", mechanism)

    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        from flashinfer.mla import BatchMLAPagedAttentionWrapper

        assert isinstance(self.mechanism, Latent)
        backend = "fa3" if torch.cuda.get_device_capability(point.device)[0] == 9 else "fa2"
        wrapper = BatchMLAPagedAttentionWrapper(_workspace(point), backend=backend)
        offsets, pages = _pages(point)
        each = torch.arange(point.batch + 1, dtype=torch.int32, device=point.device)
        lengths = torch.full((point.batch,), point.cache, dtype=torch.int32, device=point.device)
        scale = self.mechanism.scale(point)
        kinds = (point.torch_dtype, point.torch_dtype)
        wrapper.plan(each, offsets, pages, lengths, point.num_heads, LATENT, ROPE, PAGE, False, scale, *kinds)

        def call(inputs: Inputs) -> Call:
            parts = [
                part.contiguous()
                for x in (inputs["q"], inputs["k"][:, 0].reshape(-1, PAGE, LATENT + ROPE))
                for part in x.split((LATENT, ROPE), dim=-1)
            ]
            return lambda: wrapper.run(*parts)

        return [call(inputs) for inputs in sets]


def _workspace(point: Point) -> Tensor:
    return torch.zeros(WORKSPACE, dtype=torch.uint8, device=point.device)


def _pages(point: Point) -> tuple[Tensor, Tensor]:
    """Where the pages of each sequence begin, (B + 1,), and the pages of all of them."""
    each = point.cache // PAGE
    offsets = torch.arange(point.batch + 1, dtype=torch.int32, device=point.device) * each
    return offsets, torch.arange(point.batch * each, dtype=torch.int32, device=point.device)

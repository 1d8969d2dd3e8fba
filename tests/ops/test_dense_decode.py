"""Decoding with dense keys and values: in float32 under Triton's interpreter on a CPU, in every type on a GPU."""

import random
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from lit_t6.ops import cached_attention
from lit_t6.ops.dense.flash_decode import flash_decode
from lit_t6.testing import assert_as_exact_as

from .seeds import INTERPRETED, NAN, QUIET, check_seed, check_seeds_on_a_gpu, poison

pytestmark = QUIET


@dataclass
class Shape:
    """What a compiled kernel is made for. No `value_dim` behind a `shared` one."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    shared: bool
    num_queries: int
    dtype: torch.dtype
    padded: bool


GQA = Shape(6, 2, 20, 24, False, 1, torch.float32, True)
MLA = Shape(5, 1, 40, 24, True, 2, torch.float32, True)


def draw_shape(chance: random.Random, dtypes: list[torch.dtype], *, small: bool) -> Shape:
    groups = chance.choice([1, 2, 3] if small else [1, 1, 2, 4, 8, 16])
    shared = chance.random() < 0.3
    if shared:
        value_dim = chance.choice([16, 24, 32] if small else [16, 64, 256, 512])
        head_dim, groups = value_dim + chance.choice([4, 16] if small else [4, 16, 32, 64]), 1
    else:
        head_dim = chance.choice([16, 20, 32] if small else [16, 20, 32, 64, 64, 96, 128, 256])
        value_dim = chance.choice([head_dim, head_dim, 24])
    return Shape(
        groups * chance.choice([1, 2, 5] if small else [1, 1, 2, 4, 5, 8, 16, 47]),
        groups,
        head_dim,
        value_dim,
        shared,
        chance.choice([1, 1, 1, 2, 3, 5, 8, 16]),
        chance.choice(dtypes),
        chance.random() < 0.5,
    )


def check_decoding(shape: Shape, batch: int, length: int, lengths: list[int], device: str) -> None:
    """Compare the kernel with PyTorch's attention; what it must not read is poisoned."""

    def kept(size: int) -> Tensor:
        width = -(-size // 8) * 8 if shape.padded else size
        x = torch.full((batch, length, shape.num_kv_heads, width), NAN, dtype=shape.dtype, device=device)
        x[..., :size] = torch.randn(*x.shape[:-1], size, device=device)
        return x[..., :size]

    q = torch.randn(batch, shape.num_queries, shape.num_heads, shape.head_dim, device=device).to(shape.dtype)
    k = kept(shape.head_dim)
    v = shape.value_dim if shape.shared else kept(shape.value_dim)
    rows = torch.tensor(lengths, device=device)

    def decode(dtype: torch.dtype, impl: str) -> Tensor:
        values = v.to(dtype) if isinstance(v, Tensor) else v
        return cached_attention(q.to(dtype), k.to(dtype), values, lengths=rows, impl=impl)  # type: ignore[arg-type]

    exact, reference = decode(torch.float64, "reference"), decode(shape.dtype, "reference")
    for x in (k, v):
        if isinstance(x, Tensor):
            poison(x, lengths)
    result = cached_attention(q, k, v, lengths=rows, impl="triton")
    assert_as_exact_as(result, reference, exact, f"{shape}, {batch} × {length}, {lengths}")


@INTERPRETED
@pytest.mark.parametrize("seed", range(16))
def test_random_shapes_are_as_exact_as_the_reference(seed):
    problem = check_seed(seed, [torch.float32], "cpu", draw_shape, check_decoding, sizes=1)
    assert problem is None, problem


@INTERPRETED
@pytest.mark.parametrize("shape", [GQA, MLA], ids=["apart", "shared"])
def test_every_split_and_no_split_gives_the_same(shape):
    for length in (2, 15, 16, 17, 600):
        check_decoding(shape, 2, length, [length, 0], "cpu")


@INTERPRETED
@pytest.mark.parametrize("shared", [False, True])
def test_the_operator_is_registered_rightly(shared):
    q, k, v = torch.randn(2, 1, 4, 20), torch.randn(2, 5, 1, 20), torch.randn(2, 5, 1, 16)
    arguments = (q, k, None if shared else v, 16, torch.tensor([5, 3]), 0.25)
    torch.library.opcheck(flash_decode, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (replace(GQA, num_queries=17), "new queries: 17, 16 at most"),
        (replace(GQA, head_dim=258), "head size: 258, 256 at most"),
        (replace(GQA, value_dim=258), "head size of the values: 258, 256 at most"),
        (replace(MLA, head_dim=514, value_dim=513), "size of the shared values: 513, 512 at most"),
        (replace(MLA, head_dim=160), "features behind them: 136, 128 at most"),
        (replace(GQA, dtype=torch.float64), "a cache of torch.float64, expected one of float32, float16, bfloat16"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused_with_the_reason(shape, reason):
    with pytest.raises(ValueError, match=f"impl='triton' cannot decode this: {reason}. Use impl='auto'."):
        check_decoding(shape, 1, 20, [20], "cpu")


def test_tensors_on_a_cpu_need_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="tensors on cpu, expected a GPU"):
        check_decoding(GQA, 1, 20, [20], "cpu")


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_many_shapes_on_a_gpu():
    check_seeds_on_a_gpu(60, draw_shape=draw_shape, check_decoding=check_decoding)


@pytest.mark.gpu
def test_one_graph_serves_every_length_and_nothing_is_compiled_again():
    from lit_t6.ops.dense.kernels.decode import _dense_decode_fwd_kernel as kernel

    q = torch.randn(2, 1, 8, 64, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(2, 3000, 2, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    lengths = torch.tensor([3000, 1], device="cuda")
    cached_attention(q, k, v, lengths=lengths, impl="triton")
    compiled = len(kernel.device_caches[0][0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = cached_attention(q, k, v, lengths=lengths, impl="triton")
    for now in ([1, 1], [64, 65], [2999, 700], [3000, 3000]):
        lengths.copy_(torch.tensor(now))
        graph.replay()
        exact = cached_attention(q.double(), k.double(), v.double(), lengths=lengths, impl="reference")
        reference = cached_attention(q, k, v, lengths=lengths, impl="reference")
        assert_as_exact_as(out, reference, exact)
    assert len(kernel.device_caches[0][0]) == compiled

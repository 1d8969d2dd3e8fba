"""The FlashTPA kernel: in float32 under Triton's interpreter on a CPU, in every type on a GPU."""

from dataclasses import replace

import pytest
import torch

from lit_t6.ops import tpa_decode
from lit_t6.ops.tpa import flash_decode as module
from lit_t6.ops.tpa.flash_decode import flash_decode
from lit_t6.testing import assert_as_exact_as

from .decode_shapes import Shape, check_decoding, draw_shape
from .seeds import INTERPRETED, NAN, QUIET, check_seed, check_seeds_on_a_gpu

pytestmark = QUIET
ODD = Shape(7, 20, 24, (6, 3, 2), 1, torch.float32, False, NAN, "", False, False)


@INTERPRETED
@pytest.mark.parametrize("seed", range(24))
def test_random_shapes_are_as_exact_as_the_reference(seed):
    problem = check_seed(seed, [torch.float32], "cpu", draw_shape, check_decoding, sizes=1)
    assert problem is None, problem


@INTERPRETED
@pytest.mark.parametrize("seed", range(100, 112))
def test_tiles_the_other_way_round_give_the_same(seed, monkeypatch):
    """As half precision has them on a GPU."""
    calls = []
    monkeypatch.setattr(module, "_rows_come_first", lambda rows, itemsize, finite: (calls.append(finite), finite)[1])
    problem = check_seed(seed, [torch.float32], "cpu", draw_shape, check_decoding, sizes=1)
    assert problem is None, problem
    assert calls


def test_many_rows_come_first_in_half_precision_where_nothing_foreign_is_read():
    assert module._rows_come_first(64, 2, True)
    assert not module._rows_come_first(32, 2, True)
    assert not module._rows_come_first(64, 4, True)
    assert not module._rows_come_first(64, 2, False)
    padded, packed = (192, 96, 8, 48), (94, 47, 1, 47)
    other = (0, 0, 1, 0)
    assert module._reads_padding(47, [padded, other, other, packed, other, other])
    assert module._reads_padding(47, [packed, other, other, padded, other, other])
    assert not module._reads_padding(48, [padded, other, other, padded, other, other])
    assert not module._reads_padding(47, [packed, padded, other, packed, padded, other])


@INTERPRETED
def test_every_split_and_no_split_gives_the_same():
    for length in (1, 15, 16, 17, 600):
        check_decoding(ODD, 2, length, [length, 0], "cpu")


@INTERPRETED
@pytest.mark.parametrize("new", [1, 2])
def test_factors_of_queries_may_be_of_two_types(new):
    """As under autocast, where a softmax over the heads is float32."""
    f = [torch.randn(1, n, 2, size) for n, size in ((new, 7), (new, 16), (5, 7), (5, 16), (5, 7), (5, 16))]
    mixed = tpa_decode(f[0].double(), *f[1:], impl="triton")
    assert torch.equal(mixed, tpa_decode(*f, impl="triton"))


@INTERPRETED
def test_the_operator_is_registered_rightly():
    f = [torch.randn(2, n, 2, size) for n, size in ((1, 7), (1, 16), (5, 7), (5, 16), (5, 7), (5, 16))]
    arguments = (*f, None, None, None, None, torch.tensor([5, 3]), 0.25, False)
    torch.library.opcheck(flash_decode, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(num_queries=17), "new queries: 17, 16 at most"),
        (dict(ranks=(33, 1, 1)), "rank of the queries: 33, 32 at most"),
        (dict(ranks=(1, 9, 1)), "rank of the keys: 9, 8 at most"),
        (dict(value_dim=130), "head size of the values: 130, 128 at most"),
        (dict(dtype=torch.float64), "a cache of torch.float64, expected one of float32, float16, bfloat16"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused_with_the_reason(change, reason):
    shape = Shape(**{**vars(ODD), **change})
    with pytest.raises(ValueError, match=f"impl='triton' cannot decode this: {reason}. Use impl='auto'."):
        check_decoding(shape, 1, 20, [20], "cpu")


@INTERPRETED
def test_what_an_interpreter_computes_wrongly_is_refused():
    with pytest.raises(ValueError, match="bfloat16 on a CPU, .* expected float32 or float16. Use impl='auto'"):
        check_decoding(replace(ODD, dtype=torch.bfloat16), 1, 20, [20], "cpu")


def test_tensors_on_a_cpu_need_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="tensors on cpu, expected a GPU"):
        check_decoding(ODD, 1, 20, [20], "cpu")


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_hundreds_of_shapes_on_a_gpu():
    check_seeds_on_a_gpu(100, draw_shape=draw_shape, check_decoding=check_decoding)


@pytest.mark.gpu
def test_a_million_tokens_on_a_gpu():
    shape = Shape(32, 64, 64, (16, 1, 1), 1, torch.bfloat16, False, 0.0, "", False, False)
    check_decoding(shape, 1, 2**20, [2**20], "cuda")


@pytest.mark.gpu
def test_one_graph_serves_every_length_and_nothing_is_compiled_again():
    from lit_t6.ops.tpa.kernels.decode import _tpa_decode_fwd_kernel as kernel

    sizes = ((1, 6, 47), (1, 6, 64), (3000, 2, 47), (3000, 2, 64), (3000, 2, 47), (3000, 2, 64))
    f = [torch.randn(2, n, rank, size, device="cuda", dtype=torch.bfloat16) for n, rank, size in sizes]
    lengths = torch.tensor([3000, 1], device="cuda")
    tpa_decode(*f, lengths=lengths, impl="triton")
    compiled = len(kernel.device_caches[0][0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = tpa_decode(*f, lengths=lengths, impl="triton")
    for now in ([1, 1], [64, 65], [2999, 700], [3000, 3000]):
        lengths.copy_(torch.tensor(now))
        graph.replay()
        expected = tpa_decode(*(x.double() for x in f), lengths=lengths, impl="reference")
        reference = tpa_decode(*f, lengths=lengths, impl="reference")
        assert_as_exact_as(out, reference, expected)
    assert len(kernel.device_caches[0][0]) == compiled

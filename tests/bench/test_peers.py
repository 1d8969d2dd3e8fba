"""What peers are given; that they compute what they should is checked at every run of the benchmark."""

import hashlib
import shutil
import warnings
from functools import partial

import pytest
import torch

from lit_t6.bench.facts import facts
from lit_t6.bench.grid import Point
from lit_t6.bench.measure import Preparing
from lit_t6.bench.mechanisms import MECHANISMS
from lit_t6.bench.peers import LIBRARIES, OURS, make_peers
from lit_t6.bench.peers.ours import OurDense
from lit_t6.bench.peers.pytorch import Flex, Fused
from lit_t6.bench.peers.upstream import ANY_RANK, ONE_RANK, Upstream, find_kernels, load

STAND_IN = '''
"""What the authors' functions are documented to compute, from tensors of the documented shapes."""
import torch

def decode(aq, ak, av, bq, bk, bv, scale_q=None):
    if ak.ndim == 3:
        ak, av, bk, bv = (x[..., None] for x in (ak, av, bk, bv))
    assert all(x.is_contiguous() for x in (aq, bq))
    seen.append((aq.shape[-1], [x.permute(0, 3, 1, 2).is_contiguous() for x in (ak, av, bk, bv)]))
    q = torch.einsum("bnhr,bnrd->bnhd", aq, bq) * scale_q
    k = torch.einsum("bmhs,bmds->bmhd", ak, bk) / ak.shape[-1]
    v = torch.einsum("bmhs,bmds->bmhd", av, bv) / av.shape[-1]
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k).mul(q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v)

seen = []
tpa_decode_parallel_bn_triton = tpa_decode_parallel_bh_triton = decode
'''


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "decode").mkdir()
    for name in (ONE_RANK, ANY_RANK):
        (tmp_path / "decode" / name).write_text(STAND_IN)
    return tmp_path


def point(ranks, device="cpu"):
    return Point(5, 16, 2, 24, ranks, 1, "float32", device)


@pytest.mark.parametrize(("ranks", "by_rank"), [((16, 1, 1), False), ((6, 2, 3), False), ((6, 2, 3), True)])
def test_the_authors_functions_get_what_they_are_documented_to_take(clone, ranks, by_rank):
    kernels = find_kernels(clone)
    at, tpa = point(ranks), MECHANISMS["TPA"]
    inputs = tpa.draw(at, torch.Generator().manual_seed(0))
    (call,) = Upstream(tpa, kernels, "bn", by_rank).prepare(at, [inputs])
    torch.testing.assert_close(call().double(), tpa.exact(at, inputs), rtol=1e-4, atol=1e-5)
    rank_q, ready = load(kernels[ONE_RANK if ranks[1:] == (1, 1) else ANY_RANK]).seen[-1]
    assert rank_q == 16
    assert all(ready) == (by_rank or ranks[1:] == (1, 1))


def test_the_authors_files_are_found_where_they_lie(clone, tmp_path):
    both = find_kernels(clone)
    assert both == find_kernels(clone / "decode")
    assert set(both) == {ONE_RANK, ANY_RANK}
    told = facts("cpu", both)["upstream_sha256"]
    assert told == dict.fromkeys(both, hashlib.sha256(STAND_IN.encode()).hexdigest())
    assert find_kernels(clone / "decode" / ANY_RANK) == {ANY_RANK: both[ANY_RANK]}
    only = Upstream(MECHANISMS["TPA"], find_kernels(clone / "decode" / ONE_RANK), "bn")
    assert only.why_not(point((6, 2, 2))) == f"there is no {ANY_RANK}"
    (tmp_path / ONE_RANK).write_text("x = 1")
    with pytest.raises(ValueError, match="has no function tpa_decode_parallel_bn_triton"):
        load(tmp_path / ONE_RANK)


@pytest.mark.parametrize("mechanism", ["MQA", "GQA", "MHA", "MLA"])
@pytest.mark.parametrize("compute", [OurDense, partial(Flex, compiled=False)])
def test_what_a_gpu_compiles_is_given_the_right_tensors(mechanism, compute):
    """Under Triton's interpreter, and as PyTorch's own operators."""
    at = Point(6, 16, 2, 40, (1, 1, 1), 3, "float32", "cpu")
    inputs = MECHANISMS[mechanism].draw(at, torch.Generator().manual_seed(0))
    peer = compute(MECHANISMS[mechanism])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        (call,) = peer.prepare(at, [inputs])
        result = peer.result(call(), at).double()
    torch.testing.assert_close(result, MECHANISMS[mechanism].exact(at, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
def test_flex_attention_compiles():
    at = Point(6, 16, 2, 40, (1, 1, 1), 3, "float32", "cpu")
    sets = [MECHANISMS["GQA"].draw(at, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    peer = Flex(MECHANISMS["GQA"])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = [peer.result(call(), at).double() for call in peer.prepare(at, sets)]
    for result, inputs in zip(results, sets, strict=True):
        torch.testing.assert_close(result, MECHANISMS["GQA"].exact(at, inputs), rtol=1e-4, atol=1e-5)


def test_ours_is_measured_in_any_case():
    (ours,) = make_peers([], None)
    assert (ours.library, ours.mechanism.name, ours.strict) == (OURS, "TPA", True)
    peers = make_peers(LIBRARIES, None)
    assert {peer.library for peer in peers} == set(LIBRARIES)
    names = [(peer.mechanism.name, peer.name) for peer in peers]
    assert len(names) == len(set(names))


def test_backends_say_what_they_cannot_do():
    at = point((1, 1, 1), device="cuda")
    assert Fused(MECHANISMS["MLA"], "flash", "grouped").why_not(at) == "heads of 576, 256 at most"
    assert Fused(MECHANISMS["MHA"], "flash", "enable_gqa").why_not(at) == "no heads are grouped"
    assert Fused(MECHANISMS["MQA"], "cuDNN", "enable_gqa").why_not(at) is None
    assert Fused(MECHANISMS["MQA"], "cuDNN", "grouped").why_not(point((1, 1, 1))) == "needs a CUDA GPU"


def test_a_peer_that_compiles_for_long_is_given_up():
    peer, preparing = Flex(MECHANISMS["MHA"]), Preparing()
    preparing.add(peer, 40)
    assert preparing.given_up(peer) is None
    assert preparing.given_up(Flex(MECHANISMS["MQA"])) is None
    preparing.add(peer, 10)
    assert preparing.given_up(peer) == "compiling it for earlier shapes took 50 s of the 45 s that it has in a run"

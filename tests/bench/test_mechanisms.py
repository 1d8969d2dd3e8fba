import pytest
import torch

from lit_t6.bench.grid import Point
from lit_t6.bench.mechanisms import MECHANISMS
from lit_t6.bench.peers.pytorch import Products


def point(dtype="float32", **changes):
    return Point(
        **{"num_heads": 6, "head_dim": 16, "batch": 2, "cache": 40, "ranks": (3, 2, 1), "kv_groups": 3} | changes,
        dtype=dtype,
        device="cpu",
    )


def drawn(mechanism, at):
    return MECHANISMS[mechanism].draw(at, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("mechanism", "numbers"),
    [("TPA", 3 * (6 + 16)), ("MQA", 2 * 16), ("GQA", 2 * 3 * 16), ("MHA", 2 * 6 * 16), ("MLA", 576)],
)
def test_bytes_of_a_cache_are_those_without_padding(mechanism, numbers):
    assert MECHANISMS[mechanism].cache_bytes(point("bfloat16")) == numbers * 2 * 2 * 40


def test_factors_lie_as_decoding_keeps_them():
    inputs = drawn("TPA", point("bfloat16", num_heads=47))
    assert inputs["a_k"].shape == (2, 40, 2, 47)
    assert inputs["a_k"].stride(2) == 48
    assert all(x.float().std() > 0.5 for x in inputs.values())


def test_the_truth_of_tensor_products_is_that_of_the_keys_they_form():
    at = point()
    x = {name: factor.double() for name, factor in drawn("TPA", at).items()}
    q = torch.einsum("bnrh,bnrd->bhd", x["a_q"], x["b_q"]) / 3
    k = torch.einsum("bmrh,bmrd->bhmd", x["a_k"], x["b_k"]) / 2
    v = torch.einsum("bmrh,bmrd->bhmd", x["a_v"], x["b_v"])
    weights = (torch.einsum("bhd,bhmd->bhm", q, k) / 4).softmax(-1)
    exact = MECHANISMS["TPA"].exact(at, drawn("TPA", at))
    torch.testing.assert_close(exact, torch.einsum("bhm,bhmd->bhd", weights, v))


@pytest.mark.parametrize(("mechanism", "groups"), [("MQA", 1), ("GQA", 3), ("MHA", 6), ("MLA", 1)])
def test_the_truth_of_dense_caches_is_that_of_a_loop(mechanism, groups):
    at = point()
    inputs = drawn(mechanism, at)
    exact = MECHANISMS[mechanism].exact(at, inputs)
    scale = (16 + 64) ** -0.5 if mechanism == "MLA" else 0.25
    for head in range(6):
        k, v = (inputs[name][1, head // (6 // groups)].double() for name in ("k", "v"))
        weights = (k @ inputs["q"][1, head].double() * scale).softmax(0)
        torch.testing.assert_close(exact[1, head], weights @ v)
    reference = MECHANISMS[mechanism].reference(at, inputs)
    assert reference.dtype == torch.float32
    torch.testing.assert_close(reference.double(), exact, rtol=1e-4, atol=1e-5)


def test_values_of_a_latent_cache_are_the_beginning_of_its_keys():
    inputs = drawn("MLA", point())
    assert inputs["v"].data_ptr() == inputs["k"].data_ptr()
    assert (inputs["k"].shape[-1], inputs["v"].shape[-1]) == (576, 512)


def test_heads_that_do_not_divide_are_told():
    assert MECHANISMS["GQA"].why_not(point(num_heads=7)) == "7 heads are no multiple of 3"
    assert MECHANISMS["MHA"].why_not(point(num_heads=7)) is None


def test_long_rows_are_computed_in_pieces(monkeypatch):
    at = point()
    inputs = drawn("MHA", at)
    whole = MECHANISMS["MHA"].exact(at, inputs)
    monkeypatch.setattr("lit_t6.bench.mechanisms._CHUNK", 8 * 40 * 16 * 4)  # four heads at a time
    torch.testing.assert_close(MECHANISMS["MHA"].exact(at, inputs), whole)


def test_matrix_products_give_the_truth():
    at = point()
    peer = Products(MECHANISMS["GQA"])
    (call,) = peer.prepare(at, [drawn("GQA", at)])
    result = peer.result(call(), at).double()
    torch.testing.assert_close(result, MECHANISMS["GQA"].exact(at, drawn("GQA", at)), rtol=1e-4, atol=1e-5)

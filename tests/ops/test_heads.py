"""Kernels that make heads of factors and take gradients back, by themselves: float32 under Triton's interpreter."""

import pytest
import torch

from lit_t6.ops import apply_rope, materialise, rope_angles
from lit_t6.ops.tpa.heads import form_heads, form_heads_backward
from lit_t6.testing import assert_as_exact_as

from .query_tiles import in_tiles
from .seeds import INTERPRETED, QUIET

pytestmark = [INTERPRETED, *QUIET]
LETTERS = "qkv"


def draw(batch, length, heads, size, ranks):
    """Pairs of factors, of rank 0 None and the heads, and gradients of the heads, in float64."""
    pairs = [
        (
            torch.randn(batch, length, r, heads).double() if r else None,
            torch.randn(batch, length, r or heads, size).double(),
        )
        for r in ranks
    ]
    return pairs, list(torch.randn(3, batch, length, heads, size).double())


def by_products(pairs, grads, rope):
    """All of it by products and autograd, in the type of the factors."""
    found = {}
    for letter, (a, b), grad in zip(LETTERS, pairs, grads, strict=True):
        there = {f"a_{letter}": a, f"b_{letter}": b}
        leaves = {name: x.detach().requires_grad_() for name, x in there.items() if x is not None}
        b = leaves[f"b_{letter}"]
        turned = b.clone() if letter == "v" or rope is None else apply_rope(b, *rope)
        out = turned if a is None else materialise(leaves[f"a_{letter}"], turned)
        found |= {letter: out.detach()}
        found |= dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), grad), strict=True))
    return found


def by_kernels(pairs, grads, rope):
    """Dense queries are turned too."""
    found = dict(zip(LETTERS, form_heads(pairs, rope, turns_dense=True), strict=True))
    back = form_heads_backward(grads, pairs, rope, turns_dense=True)
    for letter, (a, _), (of_a, of_b) in zip(LETTERS, pairs, back, strict=True):
        assert (a is None) == (of_a is None)
        found |= {f"b_{letter}": of_b} if of_a is None else {f"a_{letter}": of_a, f"b_{letter}": of_b}
    return found


def cast(pairs, grads, dtype):
    return [(None if a is None else a.to(dtype), b.to(dtype)) for a, b in pairs], [g.to(dtype) for g in grads]


def check(pairs, grads, rope):
    """Pairs and gradients in float32, lying as they are."""
    wide = None if rope is None else tuple(x.double() for x in rope)
    exact = by_products(*cast(pairs, grads, torch.float64), wide)
    reference, found = by_products(pairs, grads, rope), by_kernels(pairs, grads, rope)
    for name, value in found.items():
        assert value.is_contiguous(), name
        assert_as_exact_as(value, reference[name], exact[name], name)


def single(pairs, grads):
    return cast(pairs, grads, torch.float32)


CASES = {
    "trained": dict(batch=1, length=3, heads=47, size=64, ranks=(6, 2, 2)),
    "odd": dict(batch=2, length=3, heads=7, size=10, ranks=(5, 1, 3)),
    "one token": dict(batch=2, length=1, heads=4, size=16, ranks=(2, 2, 2)),
    "one head": dict(batch=1, length=5, heads=1, size=8, ranks=(1, 1, 1)),
    "high ranks": dict(batch=1, length=2, heads=5, size=16, ranks=(17, 32, 16)),
    "dense queries, trained": dict(batch=1, length=3, heads=29, size=64, ranks=(0, 2, 2)),
    "dense queries": dict(batch=2, length=5, heads=3, size=16, ranks=(0, 2, 1)),
    "dense queries of 64": dict(batch=1, length=5, heads=3, size=64, ranks=(0, 1, 2)),
    "dense queries of 10": dict(batch=2, length=1, heads=40, size=10, ranks=(0, 5, 2)),
}


@pytest.mark.parametrize("rotated", [False, True], ids=["plain", "rotated"])
@pytest.mark.parametrize("case", CASES)
def test_heads_and_gradients_are_as_exact_as_products(case, rotated):
    torch.manual_seed(0)
    given = CASES[case]
    rope = rope_angles(torch.arange(given["length"]) + 3, given["size"]) if rotated else None
    check(*single(*draw(**given)), rope)


SMALL = dict(batch=2, length=3, heads=5, size=16, ranks=(3, 2, 2))
TABLES = {
    "of all rows": lambda: rope_angles(torch.arange(3), 16),
    "of one row": lambda: tuple(x[None] for x in rope_angles(torch.arange(3), 16)),
    "row by row": lambda: rope_angles(torch.arange(3) + torch.tensor([[4], [9]]), 16),
    "cut out": lambda: tuple(x[3:6] for x in rope_angles(torch.arange(9), 16)),
    "every other feature": lambda: tuple(x[:, ::2] for x in rope_angles(torch.arange(3), 32)),
    "transposed": lambda: tuple(x.T.contiguous().T for x in rope_angles(torch.arange(3), 16)),
    "expanded": lambda: tuple(x.expand(2, 3, 8) for x in rope_angles(torch.arange(3), 16)),
}


@pytest.mark.parametrize("ranks", [(3, 2, 2), (0, 2, 2)])
@pytest.mark.parametrize("table", TABLES)
def test_tables_may_lie_anyhow(table, ranks):
    torch.manual_seed(0)
    check(*single(*draw(**SMALL | {"ranks": ranks})), TABLES[table]())


def lying(how, x):
    """The same numbers, otherwise in memory; what lies between them is NaN."""
    if how == "in wider rows":
        wide = torch.full((*x.shape[:-1], x.shape[-1] + 3), float("nan"))[..., 1:-2]
    elif how == "apart":
        wide = torch.full((*(2 * n for n in x.shape[:3]), x.shape[3]), float("nan"))[::2, ::2, ::2]
    elif how == "last axis first":
        wide = torch.empty(x.shape[::-1]).permute(3, 2, 1, 0)
    else:
        assert how == "tokens first"
        wide = torch.empty(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)
    assert not wide.is_contiguous()
    return wide.copy_(x)


@pytest.mark.parametrize("ranks", [(3, 2, 2), (0, 2, 2)])
@pytest.mark.parametrize("how", ["in wider rows", "apart", "last axis first", "tokens first"])
def test_factors_and_gradients_may_lie_anyhow(how, ranks):
    torch.manual_seed(0)
    pairs, grads = single(*draw(**SMALL | {"ranks": ranks}))
    rope = TABLES["row by row"]()
    moved = [(None if a is None else lying(how, a), lying(how, b)) for a, b in pairs], [lying(how, g) for g in grads]
    found, expected = by_kernels(*moved, rope), by_kernels(pairs, grads, rope)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_static_factors_are_expanded_ones():
    torch.manual_seed(0)
    pairs, grads = single(*draw(**SMALL))
    static = [(a[:1, :1].expand(2, 3, -1, -1), b) for a, b in pairs]
    packed = [(a.contiguous(), b) for a, b in static]
    rope = TABLES["of all rows"]()
    found, expected = by_kernels(static, grads, rope), by_kernels(packed, grads, rope)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    ("rope", "problem"),
    [
        (lambda: rope_angles(torch.arange(3), 8), "turns all features or none"),
        (lambda: rope_angles(torch.arange(4), 16), "angles of 4 positions, expected 3"),
        (lambda: tuple(x.expand(3, 3, 8) for x in rope_angles(torch.arange(3), 16)), "of 3 rows, expected 1 or 2"),
    ],
)
def test_tables_that_do_not_fit_are_a_mistake_of_ours(rope, problem):
    pairs, _ = single(*draw(**SMALL))
    with pytest.raises(AssertionError, match=problem):
        form_heads(pairs, rope())


@pytest.mark.parametrize("rotated", [False, True], ids=["plain", "rotated"])
@pytest.mark.parametrize(
    ("batch", "length", "heads", "ranks"),
    [
        *[(1, 3, 47, (6, 2, 2)), (2, 9, 7, (3, 1, 2)), (1, 66, 1, (1, 1, 1))],
        *[(1, 3, 29, (0, 2, 2)), (2, 5, 3, (0, 1, 2)), (1, 66, 1, (0, 1, 1))],
    ],
)
def test_gradients_of_queries_may_come_in_tiles(batch, length, heads, ranks, rotated):
    torch.manual_seed(0)
    pairs, grads = single(*draw(batch, length, heads, 64, ranks))
    rope = rope_angles(torch.arange(length) + 3, 64) if rotated else None
    wide = None if rope is None else tuple(x.double() for x in rope)
    exact = by_products(*cast(pairs, grads, torch.float64), wide)
    reference = by_products(pairs, grads, rope)
    found = by_kernels(pairs, [in_tiles(grads[0], 0.125), *grads[1:]], rope)
    for name, value in found.items():
        assert_as_exact_as(value, reference[name], exact[name], name)


def test_tiles_are_for_queries_that_have_factors():
    pairs, grads = single(*draw(1, 3, 5, 64, (3, 2, 2)))
    with pytest.raises(AssertionError, match="for queries that have factors"):
        form_heads_backward([in_tiles(grads[0], 1.0), *grads[1:]], [(None, grads[0]), *pairs[1:]], None)


def test_dense_queries_are_left_as_they_are_unless_they_are_to_turn():
    pairs, grads = single(*draw(2, 3, 5, 16, (0, 2, 2)))
    rope = TABLES["of all rows"]()
    assert form_heads(pairs, rope)[0] is pairs[0][1]
    assert form_heads_backward(grads, pairs, rope)[0][1] is grads[0]


def test_dense_queries_of_an_odd_size_are_copied():
    torch.manual_seed(0)
    check(*single(*draw(2, 3, 5, 9, (0, 2, 2))), None)


def test_dense_queries_turn_beside_factors_only():
    pairs, _ = single(*draw(1, 3, 5, 16, (0, 0, 0)))
    with pytest.raises(AssertionError, match="turns queries beside factors"):
        form_heads(pairs, None, turns_dense=True)

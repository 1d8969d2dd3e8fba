"""Steps that are planned once: when a plan serves another call, and when not."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lit_t6.ops import cached_attention, decode_plan, rope_angles, tpa_decode
from lit_t6.ops.decode_plan import _MOST_PLANS, DecodePlan, Plans, key_of
from lit_t6.ops.dense import flash_decode as dense_module
from lit_t6.ops.kernels.merge import _merge_kernel
from lit_t6.ops.tpa import flash_decode as tpa_module
from lit_t6.testing import assert_as_exact_as

from .seeds import INTERPRETED, NAN, QUIET, poison

pytestmark = QUIET
SIZES = ((1, 7), (1, 16), (40, 7), (40, 16), (40, 7), (40, 16))


def draw(batch=2, rank=2):
    return [torch.randn(batch, length, rank, size) for length, size in SIZES]


@pytest.fixture
def plans(monkeypatch):
    """How often something was planned."""
    made = []
    for module in (tpa_module, dense_module):
        module._PLANS.clear()
        plan = module._plan

        def spy(*arguments, plan=plan):
            made.append(arguments)
            return plan(*arguments)

        monkeypatch.setattr(module, "_plan", spy)
    yield made
    for module in (tpa_module, dense_module):
        module._PLANS.clear()


@pytest.mark.parametrize("splits", [1, 2, 3])
def test_what_parts_write_begins_at_16_bytes(splits):
    """Triton compiles a kernel again for a pointer that does not."""
    how = {"shape": (1, 1, 3, 17), "dtype": torch.float32, "device": torch.device("cpu"), "block_m": 16, "scale": 1.0}
    plan = DecodePlan(_merge_kernel, tiles=1, splits=splits, values={}, **how)
    found = torch.empty(plan._numbers)
    out, top, total = plan.cut(found)
    assert all(x.data_ptr() % 16 == 0 for x in (out, top, total))
    assert out.shape == (1, splits, 1, 3, 17)
    assert top.shape == total.shape == out.shape[:-1]
    ends = [x.data_ptr() + x.nbytes for x in (out, top, total)]
    assert ends[0] <= top.data_ptr()
    assert ends[1] <= total.data_ptr()
    assert ends[2] == found.data_ptr() + found.nbytes


@INTERPRETED
@pytest.mark.parametrize("kind", ["tpa", "shared", "dense"])
def test_a_call_like_one_before_is_not_planned_again_and_is_as_right(kind, plans):
    for length in (40, 11, 40):
        if kind == "tpa":
            f = draw()
            cached = [x[:, :length] for x in f[2:]]
            result = tpa_decode(*f[:2], *cached, impl="triton")
            reference = tpa_decode(*f[:2], *cached, impl="reference")
        else:
            q, k, v = torch.randn(2, 1, 4, 16), torch.randn(2, 40, 2, 16), torch.randn(2, 40, 2, 16)
            k, v = k[:, :length], 16 if kind == "shared" else v[:, :length]
            k = k[:, :, :1] if kind == "shared" else k
            result = cached_attention(q, k, v, impl="triton")
            reference = cached_attention(q, k, v, impl="reference")
        torch.testing.assert_close(result, reference)
    assert len(plans) == 1


@INTERPRETED
def test_a_plan_excuses_no_wrong_argument(plans):
    f = draw()
    rope = rope_angles(torch.arange(40), 16)
    lengths = torch.tensor([40, 3])
    tpa_decode(*f, lengths=lengths, rope=rope, impl="triton")
    wrong = {
        "a_v has shape": dict(factors=[*f[:4], f[4][:, :39], f[5]]),
        "a_q has shape": dict(factors=[f[0], f[1][:1], *f[2:]]),
        "lengths has shape": dict(lengths=torch.tensor([40, 3, 1])),
        "rope: angles of 39 positions": dict(rope=tuple(x[:39] for x in rope)),
        r"rope: cosines and sines of shapes \(40, 8\) and \(39, 8\)": dict(rope=(rope[0], rope[1][:39])),
        "rope: angles of 32 features, expected at most the 16": dict(rope=rope_angles(torch.arange(40), 32)),
        "4 dimensions": dict(factors=[*f[:3], f[3][0], *f[4:]]),
        "is not an implementation": dict(impl="fast"),
    }
    for message, change in wrong.items():
        given = dict(factors=f, lengths=lengths, rope=rope, impl="triton") | change
        with pytest.raises(ValueError, match=message):
            tpa_decode(*given.pop("factors"), **given)
    assert len(plans) == 1
    q, k = torch.randn(2, 1, 4, 16), torch.randn(2, 5, 2, 16)
    cached_attention(q, k, k, lengths=torch.tensor([5, 3]), impl="triton")
    with pytest.raises(ValueError, match="lengths has shape"):
        cached_attention(q, k, k, lengths=torch.tensor([5, 3, 1]), impl="triton")


@INTERPRETED
def test_a_plan_is_for_tensors_that_lie_alike(plans):
    f = draw()
    tpa_decode(*f, impl="triton")
    others = {
        "type": [x.half() for x in f],
        "batch": draw(3),
        "rank": draw(2, 3),
        "wide rows": [*f[:2], *(torch.cat([x, x], dim=-1)[..., : x.shape[-1]] for x in f[2:])],
        "starts": [*f[:3], torch.cat([f[3].flatten(), f[3].flatten()])[1 : f[3].numel() + 1].view_as(f[3]), *f[4:]],
        "static": [*f[:2], f[2][:1, :1].expand(2, 40, -1, -1), *f[3:]],
    }
    for number, (name, given) in enumerate(others.items(), start=2):
        result = tpa_decode(*given, impl="triton")
        exact = tpa_decode(*(x.double() for x in given), impl="reference")
        assert_as_exact_as(result, tpa_decode(*given, impl="reference"), exact, name)
        assert len(plans) == number, name
    tpa_decode(*f, scale=0.3, impl="triton")
    tpa_decode(*f, zero_padding=True, impl="triton")
    assert len(plans) == len(others) + 3


@INTERPRETED
@pytest.mark.parametrize("change", ["whole numbers of 32 bits", "one number for all"])
def test_lengths_may_lie_as_they_like(change):
    f = draw()
    lengths = torch.tensor([7], dtype=torch.int32 if "32" in change else torch.int64).expand(2)
    for _ in range(2):
        result = tpa_decode(*f, lengths=lengths, impl="triton")
        torch.testing.assert_close(result, tpa_decode(*f, lengths=torch.tensor([7, 7]), impl="reference"))


@INTERPRETED
def test_a_cache_that_outgrows_its_room_is_planned_again(plans):
    """M counts where strides tell of less room, as those of a single sequence may."""
    a, b = torch.randn(90 * 7), torch.randn(90 * 16)
    for length in (20, 40, 40, 41):
        kept = [x.as_strided((1, length, 1, n), (20 * n, n, n, 1)) for x, n in ((a, 7), (b, 16))]
        tpa_decode(kept[0][:, :1], kept[1][:, :1], *kept, *kept, impl="triton")
    assert len(plans) == 3


@INTERPRETED
def test_a_cache_of_static_factors_fills_under_one_plan(plans):
    f = draw()
    static = f[2][:1, :1].expand(2, 40, -1, -1)
    for length in (1, 20, 40):
        tpa_decode(*f[:2], *(x[:, :length] for x in (static, f[3], static, f[5])), impl="triton")
    assert len(plans) == 1


@INTERPRETED
def test_a_call_like_one_before_does_not_reach_the_operator(plans, monkeypatch):
    f, lengths = draw(), torch.tensor([40, 3])
    cached = (f[2], f[3], None, f[4], f[5], None)

    def again():
        return tpa_module.decode_again(f[0], f[1], cached, None, lengths, None, False)

    assert again() is None
    expected = tpa_decode(*f, lengths=lengths, impl="triton")
    assert torch.equal(again(), expected)
    with torch.profiler.profile():
        assert again() is None
    with monkeypatch.context() as patch:
        patch.setattr(decode_plan, "MAX_LENGTH", 39)
        assert again() is None
    assert again() is not None
    q, k, v = torch.randn(2, 1, 4, 16), torch.randn(2, 40, 1, 16), torch.randn(2, 40, 1, 16)
    expected = cached_attention(q, k, v, lengths=lengths, impl="triton")
    assert torch.equal(dense_module.decode_again(q, k, v, lengths, None), expected)
    with torch.profiler.profile():
        assert dense_module.decode_again(q, k, v, lengths, None) is None
    assert dense_module.decode_again(q, k, 16, lengths, None) is None
    assert dense_module.decode_again(q, k, v, lengths, 0.3) is None
    for size in (16, 8):  # of values that keys begin with
        expected = cached_attention(q, k, size, lengths=lengths, impl="reference")
        torch.testing.assert_close(cached_attention(q, k, size, lengths=lengths, impl="triton"), expected)


@INTERPRETED
def test_what_is_no_number_is_not_hidden():
    f = draw()
    f[5][0, 3, 0, 0] = NAN
    result = tpa_decode(*f, impl="triton")
    assert result[0, ..., 0].isnan().all()
    assert not result[1].isnan().any()
    f = draw()
    f[3][0, 3] = NAN
    assert tpa_decode(*f, impl="triton")[0].isnan().all()


@INTERPRETED
@pytest.mark.parametrize("kind", ["tpa", "dense"])
def test_who_wants_a_gradient_is_told_that_there_is_none(kind):
    f = [x.requires_grad_() for x in draw()]
    for _ in range(2):
        out = tpa_decode(*f, impl="triton") if kind == "tpa" else cached_attention(f[1], f[3], f[5], impl="triton")
        with pytest.raises(RuntimeError, match="no autograd formula was registered"):
            out.sum().backward()


def test_a_key_is_for_tensors_of_pytorch_s_own_that_agree():
    k, v = torch.zeros(2, 5, 1, 16), torch.zeros(2, 5, 1, 16)
    tables = (torch.zeros(5, 8), torch.zeros(5, 8))
    assert key_of((1.0,), (), (k, v), tables) == key_of((1.0,), (), (k.clone(), v.clone()), tables) is not None
    assert key_of((1.0,), (), (k, v), None) != key_of((0.5,), (), (k, v), None)
    assert key_of((), (), (k, v[:, :4])) is None
    assert key_of((), (), (k, v[0])) is None
    assert key_of((), (), (k, v), (tables[0], tables[1][:4])) is None
    assert key_of((), (k.requires_grad_(),), (v, v)) is None
    with torch.no_grad():
        assert key_of((), (k,), (v, v)) is not None
    with FakeTensorMode() as mode:
        assert key_of((), (), (mode.from_tensor(v), v)) is None
    assert key_of((), (), (v, torch._neg_view(v))) is None


def test_a_key_tells_apart_what_lies_otherwise():
    v, q = torch.zeros(2, 5, 1, 16), torch.zeros(2, 1, 4, 16)
    rows = torch.zeros(80)
    strided = ((2, 5, 1, 7), (40, 8, 8, 1))
    tables = (torch.zeros(5, 8), torch.zeros(5, 8))
    wide = (torch.zeros(5, 16)[:, :8], tables[1])
    keys = [
        key_of((), (q,), (v, v)),
        key_of((), (q.double(),), (v, v)),
        key_of((), (torch.zeros(129)[1:].view_as(q),), (v, v)),
        key_of((), (q,), (v.double(), v.double())),
        key_of((), (q,), (v, v), tables),
        key_of((), (q,), (v, v), wide),
        key_of((), (q,), (v, v), (tables[0].half(), tables[1])),
        key_of((), (q,), (rows.as_strided(*strided),)),
        key_of((), (q,), (torch.zeros(79).as_strided(*strided),)),  # behind the last row there is nothing to be read
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_old_plans_are_forgotten():
    plans, made = Plans(), []

    def make(key):
        return lambda: made.append(key) or f"plan {key}"

    for key in range(_MOST_PLANS + 3):
        assert plans.made(key, make(key)) == f"plan {key}"
    assert plans.made(None, make("of tensors that have no key")) == "plan of tensors that have no key"
    known = [0, 2, 3, _MOST_PLANS + 2, None]
    assert [plans.get(key) for key in known] == [None, None, "plan 3", f"plan {_MOST_PLANS + 2}", None]
    assert plans.made(3, make(3)) == "plan 3"
    assert made.count(3) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("heads", [16, 32, 47])
@pytest.mark.parametrize("length", [70, 1000, 4096, 20000])
def test_a_kernel_that_is_started_again_computes_what_it_is_given(heads, length):
    """By addresses, on other data, and on another stream; what is behind the end is poisoned."""
    sizes = [(1, 6, heads), (1, 6, 64)] + [(length, rank, size) for rank in (1, 2) for size in (heads, 64)]
    lengths = torch.tensor([length, length // 3, 1], device="cuda")
    for turn in range(4):
        f = [torch.randn(3, n, rank, size, device="cuda", dtype=torch.bfloat16) for n, rank, size in sizes]
        exact = tpa_decode(*(x.double() for x in f), lengths=lengths, impl="reference")
        reference = tpa_decode(*f, lengths=lengths, impl="reference")
        for x in f[2:]:
            poison(x, lengths.tolist())
        with torch.cuda.stream(torch.cuda.Stream() if turn == 3 else torch.cuda.current_stream()):
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
            out = tpa_decode(*f, lengths=lengths, impl="triton")
        torch.cuda.synchronize()
        assert_as_exact_as(out, reference, exact)


@pytest.mark.gpu
def test_dense_kernels_too():
    lengths = torch.tensor([900, 1], device="cuda")
    for _ in range(3):
        q, k, v = (
            torch.randn(2, n, g, 64, device="cuda", dtype=torch.bfloat16) for n, g in ((1, 8), (900, 2), (900, 2))
        )
        exact = cached_attention(q.double(), k.double(), v.double(), lengths=lengths, impl="reference")
        reference = cached_attention(q, k, v, lengths=lengths, impl="reference")
        assert_as_exact_as(cached_attention(q, k, v, lengths=lengths, impl="triton"), reference, exact)

"""Linear layers of a decoding step: float32 under Triton's interpreter on a CPU, half precision on a GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn import Parameter

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.model import T6Config, T6Model
from lit_t6.model.feed_forward import SwiGLU
from lit_t6.ops import token_linear as module
from lit_t6.ops.token_linear import MAX_SIZE, MAX_TOKENS, takes, token_linear, token_norm
from lit_t6.testing import assert_as_exact_as

from .seeds import INTERPRETED

HALF = [torch.bfloat16, torch.float16]
SIZES = [((1,), 64, 40), ((2, 1), 47, 61), ((3,), 1024, 9), ((1, 1), 2730, 130), ((4, 1), 5, 33)]
AROUND = [
    {},
    {"eps": 1e-5},
    {"gated": True},
    {"eps": 1e-3, "gated": True, "residual": True},
    {"residual": True},
]


def plain(x, weight, eps=None, gated=False, residual=None):
    if eps is not None:
        x = F.rms_norm(x, x.shape[-1:], eps=eps)
    y = F.linear(x, weight)
    if gated:
        gate, value = y.chunk(2, dim=-1)
        y = F.silu(gate) * value
    return y if residual is None else y + residual


def check(shape, size, rows, around, dtype, device):
    torch.manual_seed(size + rows)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, device=device).to(dtype)  # noqa: E731
    around = dict(around)
    x, weight = draw(*shape, size), draw(rows * (2 if around.get("gated") else 1), size) * (3 / size**0.5)
    if around.get("residual"):
        around["residual"] = draw(*shape, rows)
    exact = {name: x.double() if isinstance(x, torch.Tensor) else x for name, x in around.items()}
    found = token_linear(x, weight, **around)
    assert found.shape == (*shape, rows)
    assert_as_exact_as(
        found, plain(x, weight, **around), plain(x.double(), weight.double(), **exact), f"{size}, {rows}, {dtype}"
    )


@INTERPRETED
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize(("shape", "size", "rows"), SIZES)
def test_as_exact_as_the_layers(shape, size, rows, around):
    check(shape, size, rows, around, torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize(("shape", "size", "rows"), [*SIZES, ((1, 1), 1024, 5460), ((4, 1), MAX_SIZE, 2048)])
def test_the_same_on_a_gpu(shape, size, rows, around, dtype):
    check(shape, size, rows, around, dtype, "cuda")


@INTERPRETED
@pytest.mark.parametrize("size", [1, 47, 1024])
def test_norm(size):
    x = torch.randn(3, 1, size)
    assert_as_exact_as(
        token_norm(x, 1e-5), F.rms_norm(x, (size,), eps=1e-5), F.rms_norm(x.double(), (size,), eps=1e-5), "norm"
    )


@INTERPRETED
def test_views_are_read_as_they_lie():
    x, weight = torch.randn(2, 3, 10)[:, 1, ::2], torch.randn(4, 5)
    torch.testing.assert_close(token_linear(x, weight), plain(x, weight))
    torch.testing.assert_close(token_norm(x, 0.0), F.rms_norm(x, (5,), eps=0.0))


class Quantised(torch.Tensor):
    """In the place of a kind of tensor whose numbers are not those that lie in memory."""


@INTERPRETED
def test_what_they_are_for():
    x, weight = torch.zeros(1, 8, dtype=torch.bfloat16), Parameter(torch.zeros(4, 8, dtype=torch.bfloat16))
    with torch.no_grad():
        assert takes(x, weight)
        assert takes(x.expand(MAX_TOKENS, 8), weight)
        assert not takes(x.expand(MAX_TOKENS + 1, 8), weight)
        assert not takes(x[:0], weight)
        assert not takes(x.float(), weight.float())
        assert not takes(x, Parameter(weight.float()))
        assert not takes(x, Parameter(weight.T))
        assert not takes(x, weight * 1)  # computed just now
        assert not takes(x, Parameter(weight.as_subclass(Quantised)))
        assert not takes(x.as_subclass(Quantised), weight)
        assert not takes(torch.zeros(1, MAX_SIZE + 1, dtype=torch.bfloat16))
        with torch.autocast("cpu", torch.bfloat16):
            assert not takes(x, weight)
    assert not takes(x, weight)  # gradients may be asked for


@INTERPRETED
def test_the_operators_keep_what_is_promised_of_operators():
    x = torch.randn(2, 1, 10)
    torch.library.opcheck(module._token_linear, (x, torch.randn(8, 10), 1e-5, True, torch.randn(2, 1, 4)))
    torch.library.opcheck(module._token_norm, (x, 1e-5))


@torch.no_grad()
def feed_forward_step(device):
    torch.manual_seed(0)
    layer = SwiGLU(48, 70).to(device, torch.bfloat16)
    torch.nn.init.normal_(layer.out.weight)
    x = torch.randn(2, 1, 48, device=device, dtype=torch.bfloat16)
    assert layer.takes_tokens(x)
    exact = layer.double()
    expected = x.double() + exact(F.rms_norm(x.double(), (48,), eps=1e-5))
    layer.bfloat16()
    reference = x + layer(F.rms_norm(x, (48,), eps=1e-5))
    assert_as_exact_as(layer.after_norm(x, 1e-5), reference, expected, "feed-forward")
    layer.out.register_forward_hook(lambda *_: None)
    assert not layer.takes_tokens(x)


@INTERPRETED
def test_a_feed_forward_of_few_tokens():
    feed_forward_step("cpu")


@pytest.mark.gpu
def test_a_feed_forward_of_few_tokens_on_a_gpu():
    feed_forward_step("cuda")


@INTERPRETED
@pytest.mark.parametrize("name", ["tpa", "mha"])
@torch.no_grad()
def test_a_step_of_a_model_goes_through_them(name, monkeypatch):
    attention = TPAConfig(3, 16, 2, 2, 2) if name == "tpa" else MultiHeadConfig(2, head_dim=16)
    model = T6Model(T6Config(31, 16, 32, 2, attention)).eval()
    for parameter in model.parameters():
        parameter.normal_(std=0.2)
    tokens = torch.randint(31, (1, 6))
    exact = model.double()(tokens)[:, -1]
    model.bfloat16()
    reference = model(tokens)[:, -1]
    cache = model.new_cache(1)
    model(tokens[:, :-1], cache=cache)
    calls = []
    own = module._token_linear
    monkeypatch.setattr(module, "_token_linear", lambda *a: (calls.append(a), own(*a))[1])
    assert_as_exact_as(model(tokens[:, -1:], cache=cache)[:, -1], reference, exact, "logits")
    assert len(calls) == 2 * 4  # two layers of projection, output, gates and values, and what follows them


@INTERPRETED
@pytest.mark.parametrize("name", ["attention_norm", "attention", "attention.out", "feed_forward_norm", "feed_forward"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
@torch.no_grad()
def test_whoever_looks_into_a_module_sees_its_calls(name, kind):
    from lit_t6.attention import TPAConfig

    model = T6Model(T6Config(31, 16, 32, 1, TPAConfig(3, 16, 2, 2, 2))).bfloat16()
    seen = []
    getattr(model.blocks[0].get_submodule(name), f"register_{kind}_hook")(lambda *of: seen.append(len(of)))
    model(torch.zeros(1, 1, dtype=torch.long), cache=model.new_cache(1))
    assert len(seen) == 1


@INTERPRETED
@torch.no_grad()
def test_who_looks_at_attention_sees_attention_alone():
    model = T6Model(T6Config(31, 16, 32, 1, TPAConfig(3, 16, 2, 2, 2))).eval().bfloat16()
    seen = []
    model.blocks[0].attention.register_forward_hook(lambda module, args, out: seen.append(out))
    cache = model.new_cache(1)
    model(torch.tensor([[1, 2]]), cache=cache)
    model(torch.tensor([[3]]), cache=cache)
    assert [x.any().item() for x in seen] == [False, False]  # a fresh model's adds nothing yet

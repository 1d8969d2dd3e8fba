"""What every attention mechanism must do; a suite to run over a new one.

A mechanism comes in as its configuration: something with `num_parameters(d_model)`, `cache_numbers_per_token()`,
`build_cache(batch_size, capacity, dtype)` and `build(d_model)`, whose module maps (B, T, C) to (B, T, C) and takes
`positions`, `document_ids` and `cache`.

    @pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
    def test_contract(check):
        check(MyMechanismConfig(num_heads=7, head_dim=16), d_model=48)
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def _example(config: Any, d_model: int, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """A module whose weights are all random (the output projection starts at zero), and an input (2, 9, C)."""
    generator = torch.Generator().manual_seed(0)
    module = config.build(d_model).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) / d_model**0.5)
    return module, torch.randn(2, 9, d_model, generator=generator, dtype=dtype)


def check_parameter_count(config: Any, d_model: int) -> None:
    """The weights of the module are as many as the formula says."""
    counted = sum(parameter.numel() for parameter in config.build(d_model).parameters())
    assert counted == config.num_parameters(d_model)


def check_causality(config: Any, d_model: int) -> None:
    """Changing a token leaves every output before it as it was, to the bit, and changes its own."""
    module, x = _example(config, d_model)
    changed = x.clone()
    changed[:, 5] += 1.0
    before, after = module(x), module(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])
    assert not torch.allclose(before[:, 8], after[:, 8])


def check_gradients_flow(config: Any, d_model: int) -> None:
    """Every weight gets a gradient that is finite and not all zero."""
    module, x = _example(config, d_model)
    module(x).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def check_gradients_are_right(config: Any, d_model: int) -> None:
    """Automatic differentiation, by the input and by every weight, agrees with finite differences in float64."""
    module, x = _example(config, d_model)
    names, weights = zip(*module.named_parameters(), strict=True)

    def attend(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x,))

    small = x[:1, :4].clone().requires_grad_()
    # fast_mode compares random projections of the Jacobian: all of it at once, in a few evaluations
    assert torch.autograd.gradcheck(attend, (small, *weights), eps=1e-6, atol=1e-6, fast_mode=True)


def check_type_is_kept(config: Any, d_model: int) -> None:
    """Output and input have one type, in bfloat16, float32 and float64."""
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        module, x = _example(config, d_model, dtype)
        assert module(x).dtype == dtype


def check_positions_are_relative(config: Any, d_model: int) -> None:
    """Shifting all positions changes nothing: neither 0 … T-1 given explicitly, nor any other offset."""
    module, x = _example(config, d_model)
    plain = module(x)
    for offset in (0, 1, 5000):
        shifted = module(x, positions=torch.arange(x.shape[1]) + offset)
        torch.testing.assert_close(shifted, plain, rtol=1e-5, atol=1e-6)


def check_positions_matter(config: Any, d_model: int) -> None:
    """The order of earlier tokens changes what a later one sees: positions are rotated in."""
    module, x = _example(config, d_model)
    swapped = x[:, [1, 0, 3, 2, 5, 4, 6, 7, 8]]
    assert not torch.allclose(module(swapped)[:, 8], module(x)[:, 8])


def check_documents_are_apart(config: Any, d_model: int) -> None:
    """Two documents in one row, each at its own positions, give what each gives alone."""
    module, x = _example(config, d_model)
    ids = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1]).expand(2, -1)
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4])
    together = module(x, positions=positions, document_ids=ids)
    alone = torch.cat((module(x[:, :4]), module(x[:, 4:])), dim=1)
    torch.testing.assert_close(together, alone)


def check_longer_than_expected(config: Any, d_model: int) -> None:
    """A module built for a few positions takes more, and then gives what one built for them gives."""
    module, x = _example(config, d_model)
    short = config.build(d_model, max_seq_len=2).to(x.dtype)
    short.load_state_dict(module.state_dict())
    torch.testing.assert_close(short(x), module(x))


def check_starts_as_zero(config: Any, d_model: int) -> None:
    """The output projection starts at zero, so that a block starts as the identity."""
    x = torch.randn(2, 5, d_model, generator=torch.Generator().manual_seed(0))
    assert not config.build(d_model)(x).any()


def _decode(
    module: nn.Module, x: Tensor, cache: Any, prompt: Sequence[int], chunks: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Feed rows to a cache: their prompts, padded on the right, then some tokens at a time until a row ends.

    Returns what came out for the tokens after the prompts, and what the full forward gives there.
    """
    rows = torch.arange(len(x))[:, None]
    padded = x[:, : max(prompt)].clone()
    padded[torch.arange(max(prompt)) >= torch.tensor(prompt)[:, None]] = float("nan")
    module(padded, cache=cache)
    cache.truncate(list(prompt))
    full, seen, came, expected = module(x), torch.tensor(prompt)[:, None], [], []
    for size in chunks:
        places = seen + torch.arange(size)
        came.append(module(x[rows, places], cache=cache))
        expected.append(full[rows, places])
        seen = seen + size
    return torch.cat(came, dim=1), torch.cat(expected, dim=1)


def _cache_full_of_rubbish(config: Any, batch_size: int, capacity: int) -> Any:
    """A cache whose unused places hold large numbers: nobody may read them."""
    cache = config.build_cache(batch_size, capacity, torch.float64)
    for buffer in cache.buffers.values():
        buffer.fill_(1e3)
    return cache


def check_cached_decoding_is_the_full_forward(config: Any, d_model: int) -> None:
    """With a cache, token by token after prompts of different lengths, comes what the full forward gives.

    Also where the padding behind the shorter prompt was not finite.
    """
    module, x = _example(config, d_model)
    came, expected = _decode(module, x, _cache_full_of_rubbish(config, 2, 9), prompt=(4, 2), chunks=[1] * 5)
    torch.testing.assert_close(came, expected, rtol=1e-9, atol=1e-9)
    assert not came.requires_grad


def check_cache_of_a_narrower_type(config: Any, d_model: int) -> None:
    """Tokens of float32 with a cache of bfloat16: the error is of its rounding, the type that of the tokens."""
    module, x = _example(config, d_model, torch.float32)
    came, expected = _decode(module, x, config.build_cache(2, 9, torch.bfloat16), prompt=(4, 2), chunks=[2, 1, 2])
    assert came.dtype == torch.float32
    error = (came - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < 4 * torch.finfo(torch.bfloat16).eps, error


def check_cached_decoding_takes_several_tokens(config: Any, d_model: int) -> None:
    """Some tokens at once, causal among themselves; in a cache that was filled, truncated and reset before."""
    module, x = _example(config, d_model)
    cache = _cache_full_of_rubbish(config, 2, 12)
    _decode(module, x, cache, prompt=(3, 5), chunks=[2])
    cache.reset()
    came, expected = _decode(module, x, cache, prompt=(1, 3), chunks=[3, 1, 2])
    torch.testing.assert_close(came, expected, rtol=1e-9, atol=1e-9)
    cache.truncate((4, 6))
    again = module(x[:, 7:], cache=cache)
    expected = module(torch.cat((x[:1, :4], x[:1, 7:]), dim=1))[:, 4:]
    torch.testing.assert_close(again[:1], expected, rtol=1e-9, atol=1e-9)


def check_cache_is_as_large_as_the_formula_says(config: Any, d_model: int) -> None:
    """Buffers hold the numbers of the formula, in rows of whole 16 bytes and no more; a full cache says so."""
    module, x = _example(config, d_model)
    for dtype in (torch.bfloat16, torch.float64):
        cache = config.build_cache(2, 5, dtype)
        assert sum(buffer[0, 0].numel() for buffer in cache.buffers.values()) == config.cache_numbers_per_token()
        rows = [row for shape in config.cache_shapes().values() for row in math.prod(shape[:-1]) * [shape[-1]]]
        padded = sum(-(-row * dtype.itemsize // 16) * 16 for row in rows)
        assert cache.bytes_per_token == padded
        assert cache.nbytes == padded * 5 * 2
    with torch.no_grad():
        module(x[:, :4], cache=cache)
        held = {name: entry.clone() for name, entry in cache.entries().items()}
        try:
            module(x[:, 4:6], cache=cache)
        except ValueError as error:
            assert "full" in str(error)  # noqa: PT017  # pytest is not needed to run the suite
        else:
            raise AssertionError("a full cache took more tokens")
    assert cache.lengths.tolist() == [4, 4]
    for name, entry in cache.entries().items():
        assert torch.equal(entry, held[name]), name


CONTRACT = (
    check_parameter_count,
    check_causality,
    check_gradients_flow,
    check_gradients_are_right,
    check_type_is_kept,
    check_positions_are_relative,
    check_positions_matter,
    check_documents_are_apart,
    check_longer_than_expected,
    check_starts_as_zero,
    check_cached_decoding_is_the_full_forward,
    check_cached_decoding_takes_several_tokens,
    check_cache_of_a_narrower_type,
    check_cache_is_as_large_as_the_formula_says,
)

import pytest
import torch

from lit_t6.model import ModelCache

from .mechanisms import MECHANISMS, build

TOKENS = torch.randint(29, (3, 11), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("steps", [[11], [1] * 11, [4, 1, 1, 3, 2]], ids=str)
def test_logits_of_pieces_are_those_of_the_whole(mechanism, steps):
    model = build(mechanism)
    cache = model.new_cache(3)
    with torch.no_grad():
        pieces = [model(piece, cache=cache) for piece in TOKENS.split(steps, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(TOKENS))
    assert cache.lengths.tolist() == [11, 11, 11]
    assert all(layer.longest == 11 for layer in cache.layers)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_rows_of_different_lengths_after_truncation(mechanism):
    model, kept = build(mechanism), [2, 7, 5]
    cache = model.new_cache(3)
    with torch.no_grad():
        model(TOKENS[:, :7], cache=cache)
        cache.truncate(kept)
        assert cache.lengths.tolist() == kept
        assert cache.longest == 7
        new = model(TOKENS[:, 7:], cache=cache)
        for row, length in enumerate(kept):
            alone = torch.cat((TOKENS[row : row + 1, :length], TOKENS[row : row + 1, 7:]), dim=1)
            torch.testing.assert_close(new[row : row + 1], model(alone)[:, length:])
        cache.reset()
        assert cache.longest == 0
        torch.testing.assert_close(model(TOKENS, cache=cache), model(TOKENS))


def test_size_and_type():
    model = build("gqa")
    cache = model.new_cache(3, capacity=5)
    assert (cache.batch_size, cache.capacity) == (3, 5)
    assert cache.bytes_per_token == 2 * 2 * 2 * 8 * 8  # layers, keys and values, heads, head size, bytes
    assert cache.nbytes == 3 * 5 * cache.bytes_per_token
    assert cache.device.type == "cpu"
    assert model.new_cache(1).capacity == 16
    assert model.new_cache(1, dtype=torch.bfloat16).bytes_per_token == cache.bytes_per_token / 4
    with torch.autocast("cpu", torch.bfloat16):
        assert model.new_cache(1).bytes_per_token == cache.bytes_per_token / 4


def test_a_cache_that_does_not_fit_is_refused_before_any_layer_has_written():
    model = build("gqa")
    cache = model.new_cache(3, capacity=5)
    model(TOKENS[:, :4], cache=cache)
    cache.layers[0].truncate(2)  # the first layer alone would have room
    with pytest.raises(ValueError, match="the cache is full: 4 of its 5 positions are taken and 2 more came"):
        model(TOKENS[:, 4:6], cache=cache)
    with pytest.raises(ValueError, match="it was made for 3 rows, got 2"):
        model(TOKENS[:2, 4:5], cache=cache)
    with pytest.raises(ValueError, match="a cache knows the positions"):
        model(TOKENS[:, :1], cache=cache, positions=torch.arange(1))
    assert [layer.longest for layer in cache.layers] == [2, 4]
    with pytest.raises(ValueError, match="it has 1 layers and the model 2; make it with model.new_cache"):
        model(TOKENS, cache=ModelCache(cache.layers[:1]))
    with pytest.raises(ValueError, match="at least one layer"):
        ModelCache([])
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        model.new_cache(1, capacity=0)

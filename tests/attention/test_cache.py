import pytest
import torch

from lit_t6.attention import AttentionCache, KeyValueCache


def make(batch_size=2, capacity=4):
    return KeyValueCache({"k": (1, 3), "v": (1, 2)}, batch_size, capacity)


def tokens(*numbers):
    """Keys and values of one new token of each row, all entries alike."""
    of_rows = torch.tensor(numbers, dtype=torch.float32)[:, None, None, None]
    return {"k": of_rows.expand(-1, 1, 1, 3), "v": of_rows.expand(-1, 1, 1, 2)}


def test_rows_grow_from_their_own_ends():
    cache = make()
    cache.append(**tokens(1, 10))
    cache.append(**tokens(2, 20))
    cache.truncate([2, 1])
    assert cache.next_positions(2).tolist() == [[2, 3], [1, 2]]
    cache.append(**tokens(3, 30))
    assert cache.lengths.tolist() == [3, 2]
    assert cache.longest == 3
    held = cache.entries()["v"][..., 0, 0]
    assert held[0].tolist() == [1, 2, 3]
    assert held[1, :2].tolist() == [10, 30]


def test_what_is_held_is_not_copied():
    cache = make()
    before = {name: buffer.data_ptr() for name, buffer in cache.buffers.items()}
    cache.append(**tokens(1, 2))
    cache.append(**tokens(1, 2))
    for name, entry in cache.entries().items():
        assert entry.data_ptr() == before[name]
        assert entry.shape[:2] == (2, 2)


def test_reset_forgets_everything():
    cache = make()
    cache.append(**tokens(1, 2))
    cache.reset()
    assert cache.lengths.tolist() == [0, 0]
    assert cache.entries()["k"].shape[1] == 0
    for _ in range(4):
        cache.append(**tokens(1, 2))


def test_what_is_forgotten_is_finite():
    cache = make()
    cache.append(**tokens(1, float("nan")))
    cache.append(**tokens(float("inf"), 2))
    cache.truncate([1, 0])
    assert all(buffer.isfinite().all() for buffer in cache.buffers.values())
    assert cache.entries()["k"][0].eq(1).all()
    cache.append(**tokens(float("nan"), 3))
    cache.reset()
    assert not any(buffer.any() for buffer in cache.buffers.values())


def test_made_in_inference_mode_written_outside():
    with torch.inference_mode():
        cache = make()
    cache.append(**tokens(1, 2))


def test_bytes():
    cache = make()
    assert cache.bytes_per_token == 2 * 16  # rows of 2 and 3 numbers of 4 bytes
    assert cache.nbytes == 2 * 4 * 32


def test_rows_are_whole_pieces_of_16_bytes():
    cache = AttentionCache({"a_k": (2, 47), "b_k": (2, 64)}, 3, 5, torch.bfloat16)
    entries = cache.entries() | cache.buffers
    assert entries["a_k"].shape[2:] == (2, 47)
    assert cache.buffers["a_k"].stride() == (5 * 2 * 48, 2 * 48, 48, 1)
    assert cache.bytes_per_token == 2 * 2 * (48 + 64)


def test_no_gradient_leads_into_the_cache():
    cache = make()
    new = {name: value.clone().requires_grad_() for name, value in tokens(1, 2).items()}
    cache.append(**new)
    assert not any(entry.requires_grad for entry in cache.entries().values())


def test_errors_say_what_to_do():
    cache = make(capacity=1)
    cache.append(**tokens(1, 2))
    with pytest.raises(
        ValueError, match=r"full: 1 of its 1 positions are taken and 1 more came; .* at least 2, or reset"
    ):
        cache.append(**tokens(1, 2))
    with pytest.raises(ValueError, match="made for 2 rows, got 1"):
        cache.append(**tokens(1))
    with pytest.raises(ValueError, match=r"rows hold \[1, 1\] tokens and cannot be truncated to \[1, 2\]"):
        cache.truncate([1, 2])
    with pytest.raises(ValueError, match=r"cannot be truncated to \[-1, -1\]"):
        cache.truncate(-1)
    with pytest.raises(ValueError, match=r"lengths of shape \(3,\), expected \(2,\)"):
        cache.truncate([0, 0, 0])
    with pytest.raises(ValueError, match=r"whole numbers of tokens, got \[1.5, 1.0\]"):
        cache.truncate([1.5, 1.0])
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        make(capacity=0)

import pytest

from lit_t6.ops.linear_cross_entropy import chunks


@pytest.fixture
def small_chunks(monkeypatch):
    """Cross-entropies take 128 tokens at a time; "auto" on a CPU then is chunks in plain PyTorch."""
    monkeypatch.setattr(chunks, "MAX_BYTES", 0)
    monkeypatch.setattr(chunks, "MIN_TOKENS", 128)

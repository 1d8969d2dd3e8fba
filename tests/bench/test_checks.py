import pytest
import torch

from lit_t6.bench.checks import judge

EXACT = torch.randn(2, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_rounding_passes():
    rounded = EXACT.bfloat16()
    assert judge(rounded, EXACT, None, "bfloat16").problem is None
    verdict = judge(rounded, EXACT, rounded.clone(), "bfloat16")
    assert verdict.problem is None
    assert 1e-4 < verdict.error < 4e-3


@pytest.mark.parametrize("wrong", [EXACT.roll(1, 0), EXACT * 1.03, torch.full_like(EXACT, float("nan")), EXACT[:1]])
def test_wrong_outputs_do_not_pass(wrong):
    assert judge(wrong.bfloat16(), EXACT, None, "bfloat16").problem is not None


def test_what_passes_for_a_peer_may_not_pass_for_ours():
    off = (EXACT * 1.015).bfloat16()
    assert judge(off, EXACT, None, "bfloat16").problem is None
    assert "error by mean" in str(judge(off, EXACT, EXACT.bfloat16(), "bfloat16").problem)

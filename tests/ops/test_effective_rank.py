import pytest
import torch

from lit_t6.ops import effective_rank, materialise


@pytest.mark.parametrize(("rank", "heads", "head_dim"), [(1, 7, 8), (2, 47, 64), (6, 5, 4), (3, 1, 8)])
def test_it_is_that_of_the_matrix_itself(rank, heads, head_dim):
    a = torch.randn(2, 3, rank, heads, dtype=torch.float64)
    b = torch.randn(2, 3, rank, head_dim, dtype=torch.float64)
    sigma = torch.linalg.svdvals(materialise(a, b))
    share = sigma / sigma.sum(-1, keepdim=True)
    expected = torch.special.entr(share).sum(-1).exp()
    torch.testing.assert_close(effective_rank(a, b), expected)
    assert (expected <= min(rank, heads, head_dim) + 1e-9).all()


def test_directions_are_counted():
    a = torch.eye(4)[:3, :].repeat(1, 2)  # three directions over 8 heads
    b = torch.eye(5)[:3, :]
    assert effective_rank(a, b).item() == pytest.approx(3)
    assert effective_rank(a, b[:1].expand(3, -1)).item() == pytest.approx(1)


def test_zeros_and_narrow_types():
    assert effective_rank(torch.zeros(2, 4), torch.zeros(2, 4)).item() == 1
    assert effective_rank(torch.randn(3, 2, 4).bfloat16(), torch.randn(3, 2, 4).bfloat16()).dtype == torch.float32


def test_what_is_not_finite_gives_nan_and_harms_no_other():
    a, b = torch.randn(3, 2, 4), torch.randn(3, 2, 5)
    a[1, 0, 0] = torch.nan
    ranks = effective_rank(a, b)
    assert ranks.isnan().tolist() == [False, True, False]
    assert ranks[2] == effective_rank(a[2], b[2])

import math

import pytest
import torch

from lit_t6.ops import apply_rope, rope_angles


def rotated(x, positions, base=10000.0):
    return apply_rope(x, *rope_angles(positions, x.shape[-1], base))


def test_is_the_rotation_of_each_pair_by_minus_the_angle():
    x = torch.randn(1, 6, 2, 8, dtype=torch.float64)
    y = rotated(x, torch.arange(6))
    for t in range(6):
        for pair in range(4):
            turn = complex(math.cos(t * 10000 ** (-pair / 4)), -math.sin(t * 10000 ** (-pair / 4)))
            expected = torch.view_as_complex(torch.stack((x[0, t, :, pair], x[0, t, :, pair + 4]), -1)) * turn
            actual = torch.view_as_complex(torch.stack((y[0, t, :, pair], y[0, t, :, pair + 4]), -1))
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)  # tables are float32


def test_keeps_lengths_and_products_depend_on_differences_only():
    q, k = torch.randn(2, 1, 1, 1, 64, dtype=torch.float64)
    product = [
        (rotated(q, torch.tensor([i])) * rotated(k, torch.tensor([j]))).sum() for i, j in ((3, 1), (1003, 1001), (9, 7))
    ]
    torch.testing.assert_close(product[1], product[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(product[2], product[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotated(q, torch.tensor([77])).norm(), q.norm(), rtol=1e-6, atol=0)


def test_far_positions_are_as_exact_as_near_ones():
    position = 2**20 - 1
    cos, sin = rope_angles(torch.tensor([position]), 8)
    for pair in range(4):
        angle = position * 10000 ** (-pair / 4)
        assert cos[0, pair].item() == pytest.approx(math.cos(angle), abs=1e-7)
        assert sin[0, pair].item() == pytest.approx(math.sin(angle), abs=1e-7)


def test_positions_may_differ_between_rows():
    x = torch.randn(2, 3, 1, 4)
    positions = torch.tensor([[0, 1, 2], [7, 8, 9]])
    both = rotated(x, positions)
    torch.testing.assert_close(both[0:1], rotated(x[0:1], positions[0]))
    torch.testing.assert_close(both[1:2], rotated(x[1:2], positions[1]))


def test_low_precision_is_rotated_in_float32():
    x = torch.randn(1, 50, 3, 16).bfloat16()
    assert torch.equal(rotated(x, torch.arange(50)), rotated(x.float(), torch.arange(50)).bfloat16())


@pytest.mark.parametrize("dim", [7, 0, -2])
def test_refuses_what_has_no_pairs(dim):
    with pytest.raises(ValueError, match=rf"even and positive, got {dim}"):
        rope_angles(torch.arange(3), dim)


def test_partial_rotation_leaves_the_rest_as_it_is():
    x = torch.randn(2, 5, 3, 10)
    angles = rope_angles(torch.arange(5), 4)
    y = apply_rope(x, *angles)
    assert torch.equal(y[..., 4:], x[..., 4:])
    torch.testing.assert_close(y[..., :4], apply_rope(x[..., :4], *angles))


def test_decay_shrinks_each_pair_by_its_angle():
    x = torch.randn(1, 6, 1, 8, dtype=torch.float64)
    plain = rotated(x, torch.arange(6))
    decayed = apply_rope(x, *rope_angles(torch.arange(6), 8, decay=0.9))
    for t in range(6):
        for pair in range(4):
            size = 0.9 ** (t * 10000 ** (-pair / 4))
            for feature in (pair, pair + 4):
                assert decayed[0, t, 0, feature] == pytest.approx(size * plain[0, t, 0, feature].item(), rel=1e-6)

"""Writing into a cache: the kernel writes what indexing writes, and nothing else."""

import pytest
import torch

from lit_t6.ops.append import append_in_one_launch, append_tokens

SHAPES = [(2, 7), (2, 16), (1, 5), (3, 4), (1, 1), (2, 24)]


def _buffers(num, dtype, device):
    """Of padded rows, all NaN."""
    return [
        torch.full((3, 9, r, -(-n // 8) * 8), float("nan"), dtype=dtype, device=device)[..., :n]
        for r, n in SHAPES[:num]
    ]


def _check(num, num_new, dtype, device):
    # As modules give them: cut out of the rows of one matrix.
    columns = sum(r * n for r, n in SHAPES[:num])
    rows = torch.randn(3, num_new, columns, device=device).split([r * n for r, n in SHAPES[:num]], -1)
    new = [row.unflatten(-1, shape) for row, shape in zip(rows, SHAPES, strict=False)]
    lengths = torch.tensor([0, 2, 5], device=device)
    kept, expected = _buffers(num, dtype, device), _buffers(num, dtype, device)
    append_in_one_launch(kept, new, lengths)
    for buffer, values in zip(expected, new, strict=True):
        for row, length in enumerate(lengths.tolist()):
            buffer[row, length : length + num_new] = values[row].to(dtype)
    for ours, theirs in zip(kept, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the kernels are compiled")
@pytest.mark.parametrize("num_new", [1, 3])
@pytest.mark.parametrize("num", [1, 2, 4, 6])
def test_the_kernel_writes_the_new_tokens_and_nothing_else(num, num_new):
    _check(num, num_new, torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num", [1, 2, 4, 6])
def test_on_a_gpu_too(num, dtype):
    for num_new in (1, 3):
        _check(num, num_new, dtype, "cuda")


def test_buffers_of_one_axis_more_are_rows_too():
    for append in (append_tokens, append_in_one_launch):
        if append is append_in_one_launch and torch.cuda.is_available():
            continue
        buffer, new = torch.zeros(2, 4, 5), torch.randn(2, 1, 5)
        append([buffer], [new], torch.tensor([3, 1]))
        assert torch.equal(buffer[0, 3], new[0, 0])
        assert torch.equal(buffer[1, 1], new[1, 0])
        assert buffer.count_nonzero() == 10

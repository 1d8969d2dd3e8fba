"""Writing into a cache: the kernel writes what indexing writes, and nothing else."""

import pytest
import torch

from lit_t6.ops import apply_rope, rope_angles
from lit_t6.ops.append import (
    MAX_PIECES,
    Piece,
    append_by_kernel,
    append_projection,
    append_projection_by_kernel,
    append_tokens,
)
from lit_t6.testing import assert_as_exact_as

from .seeds import INTERPRETED

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
    append_by_kernel(kept, new, lengths)
    for buffer, values in zip(expected, new, strict=True):
        for row, length in enumerate(lengths.tolist()):
            buffer[row, length : length + num_new] = values[row].to(dtype)
    for ours, theirs in zip(kept, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@INTERPRETED
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


PIECES = [
    Piece(3, 7, False, -1),
    Piece(3, 12, True, -1),
    Piece(2, 7, False, 1),
    Piece(2, 12, True, 0),
    Piece(1, 7, False, 2),
    Piece(1, 10, False, 3),
    Piece(2, 3, False, 4),
    Piece(1, 1, False, 5),
    Piece(2, 2, False, -1),
]
"""As many as there may be."""


def _check_projection(num_new, rotated, dtype, device):
    """Against the plain way, in float64; what is not written stays."""

    def kept(kind):
        pieces = sorted((piece for piece in PIECES if piece.buffer >= 0), key=lambda piece: piece.buffer)
        return [torch.full((3, 9, *piece[:2]), 5.0, dtype=kind, device=device) for piece in pieces]

    columns = sum(piece.num_rows * piece.row_size for piece in PIECES)
    projected = torch.randn(3, num_new, columns, device=device).to(dtype)
    lengths, rope = torch.tensor([0, 2, 5], device=device), rope_angles(torch.arange(9, device=device), rotated)
    ours, exact, plain = kept(dtype), kept(torch.float64), kept(dtype)
    flat = [int(number) for piece in PIECES for number in piece]
    back = [
        torch.full((3, num_new, *piece[:2]), 5.0, dtype=dtype, device=device) for piece in PIECES if piece.buffer < 0
    ]
    append_projection_by_kernel(ours, back, projected, flat, lengths, *rope)
    on_cpu = [[x.cpu() for x in buffers] for buffers in (exact, plain)]
    rest = lengths.cpu(), tuple(x.cpu() for x in rope)
    back_exact = append_projection(on_cpu[0], projected.cpu().double(), PIECES, *rest)
    back_plain = append_projection(on_cpu[1], projected.cpu(), PIECES, *rest)
    for actual, reference, truth in zip(
        (*ours, *back), (*on_cpu[1], *back_plain), (*on_cpu[0], *back_exact), strict=True
    ):
        assert actual.is_contiguous()
        assert_as_exact_as(actual.cpu(), reference, truth)


@INTERPRETED
@pytest.mark.parametrize("rotated", [12, 6])
@pytest.mark.parametrize("num_new", [1, 3])
def test_a_projection_is_cut_rotated_and_written(num_new, rotated):
    _check_projection(num_new, rotated, torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rotated", [12, 6])
def test_a_projection_on_a_gpu_too(rotated, dtype):
    for num_new in (1, 3):
        _check_projection(num_new, rotated, dtype, "cuda")


def test_a_projection_by_the_plain_way_is_rotated_by_its_positions():
    projected, lengths = torch.randn(2, 1, 24), torch.tensor([3, 0])
    cos, sin = rope_angles(torch.arange(4), 8)
    buffer = torch.zeros(2, 4, 2, 8)
    (q,) = append_projection([buffer], projected, [Piece(1, 8, True, -1), Piece(2, 8, True, 0)], lengths, (cos, sin))
    for row, place in enumerate([3, 0]):
        expected = apply_rope(projected[row, 0].view(1, 1, 3, 8), cos[place : place + 1], sin[place : place + 1])[0, 0]
        torch.testing.assert_close(q[row, 0], expected[:1])
        torch.testing.assert_close(buffer[row, place], expected[1:])


@INTERPRETED
def test_the_operators_are_registered_rightly():
    buffers, projected, lengths = [torch.zeros(2, 4, 2, 8)], torch.randn(2, 1, 24), torch.tensor([3, 0])
    tables = rope_angles(torch.arange(4), 8)
    pieces = [1, 8, 1, -1, 2, 8, 1, 0]
    test_utils = ("test_schema", "test_faketensor")
    back = [torch.zeros(2, 1, 1, 8)]
    torch.library.opcheck(
        append_projection_by_kernel, (buffers, back, projected, pieces, lengths, *tables), test_utils=test_utils
    )
    torch.library.opcheck(append_by_kernel, (buffers, [torch.randn(2, 1, 2, 8)], lengths), test_utils=test_utils)


def _compiled_append(buffer, projected, lengths, cos, sin):
    pieces, back = [1, 8, 1, -1, 2, 8, 1, 0], [projected.new_empty(2, 1, 1, 8)]
    append_projection_by_kernel([buffer], back, projected * 1, pieces, lengths, cos, sin)
    return back[0]


@INTERPRETED
@torch.no_grad()
def test_a_compiler_takes_the_operator():
    projected, lengths, tables = torch.randn(2, 1, 24), torch.tensor([3, 0]), rope_angles(torch.arange(4), 8)
    plain, compiled = torch.zeros(2, 4, 2, 8), torch.zeros(2, 4, 2, 8)
    expected = _compiled_append(plain, projected, lengths, *tables)
    function = torch.compile(_compiled_append, backend="aot_eager", fullgraph=True)
    assert torch.equal(function(compiled, projected, lengths, *tables), expected)
    assert torch.equal(compiled, plain)
    assert plain.any()


def test_more_pieces_than_there_are_places_for_are_refused():
    buffers = [torch.zeros(2, 4, 2)] * (MAX_PIECES + 1)
    with pytest.raises(AssertionError, match="10 pieces, 9 at most"):
        append_by_kernel(buffers, [torch.zeros(2, 1, 2)] * len(buffers), torch.tensor([3, 1]))


def test_buffers_of_one_axis_more_are_rows_too():
    for append in (append_tokens, append_by_kernel):
        if append is append_by_kernel and torch.cuda.is_available():
            continue
        buffer, new = torch.zeros(2, 4, 5), torch.randn(2, 1, 5)
        append([buffer], [new], torch.tensor([3, 1]))
        assert torch.equal(buffer[0, 3], new[0, 0])
        assert torch.equal(buffer[1, 1], new[1, 0])
        assert buffer.count_nonzero() == 10

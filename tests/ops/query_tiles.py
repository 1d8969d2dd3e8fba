"""The order of a `QueryGradient`'s numbers, as its docstring says it, by plain indexing."""

import torch

from lit_t6.ops import fused
from lit_t6.ops.dense.hopper import QueryGradient


def place(row, column):
    """Where a number of a tile stands."""
    begin = row // 16 * 1024 + row % 16 // 8 * 512 + column // 16 * 128 + row % 8 * 16
    return begin + column % 8 // 2 * 4 + column % 16 // 8 * 2 + column % 2


def in_tiles(rows, scale):
    """(B, T, H, 64) as they would have been summed up; what is behind the last position is NaN."""
    batch, length, heads, size = rows.shape
    num_tiles = -(-length // 128) * 2
    tokens, features = (torch.arange(n, device=rows.device) for n in (num_tiles * 64, size))
    filled = torch.full((batch, heads, num_tiles * 64, size), float("nan"), device=rows.device)
    filled[:, :, :length] = rows.transpose(1, 2).float() / scale
    tiles = torch.empty(batch, heads, num_tiles * 64 * size, device=rows.device)
    tiles[:, :, (tokens // 64 * 4096)[:, None] + place(tokens[:, None] % 64, features)] = filled
    return QueryGradient(tiles.view(batch, heads, num_tiles, 64 * size), (batch, length, heads, size), scale)


def give_tiles(monkeypatch):
    """Have any backend leave the gradient of queries in tiles, as ours does; a list that grows by each call."""
    calls = []
    plain = fused.attend_backward

    def in_tiles_of(*given):
        calls.append("tiles")
        of_q, of_k, of_v = plain(*given)
        return in_tiles(of_q, given[6]), of_k, of_v

    monkeypatch.setattr(fused, "attend_backward_in_tiles", in_tiles_of)
    return calls

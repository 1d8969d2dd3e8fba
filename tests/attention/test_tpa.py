import torch

from lit_t6.attention import TPAConfig
from lit_t6.ops import apply_rope, rope_angles


def test_module_is_the_papers_formula_of_its_weights():
    """Queries, keys and values by loops over ranks, rotated as wholes, and softmax by hand."""
    heads, dim, ranks, width, length = 3, 8, (3, 2, 1), 20, 6
    module = TPAConfig(heads, dim, *ranks).build(width).double()
    torch.nn.init.normal_(module.out.weight)
    x = torch.randn(2, length, width, dtype=torch.float64)

    rows = module.factors.weight.split([rank * size for size in (heads, dim) for rank in ranks])
    dense = []
    for a, b, rank in zip(rows[:3], rows[3:], ranks, strict=True):
        a, b = (x @ a.T).view(2, length, rank, heads), (x @ b.T).view(2, length, rank, dim)
        dense.append(sum(a[:, :, r, :, None] * b[:, :, r, None, :] for r in range(rank)) / rank)
    q, k, v = dense
    angles = rope_angles(torch.arange(length), dim)
    logits = torch.einsum("bqhd,bkhd->bhqk", apply_rope(q, *angles), apply_rope(k, *angles)) / dim**0.5
    logits = logits.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    expected = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2) @ module.out.weight.T
    torch.testing.assert_close(module(x), expected)

import pytest
import torch

from lit_t6.attention import MultiHeadConfig
from lit_t6.ops import apply_rope, rope_angles


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_module_is_the_formula_of_its_weights(kv_heads):
    heads, dim, width, length = 4, 8, 20, 6
    module = MultiHeadConfig(heads, kv_heads, dim).build(width).double()
    torch.nn.init.normal_(module.out.weight)
    x = torch.randn(2, length, width, dtype=torch.float64)

    w_q, w_k, w_v = module.qkv.weight.split([heads * dim, kv_heads * dim, kv_heads * dim])
    q, k, v = ((x @ w.T).unflatten(-1, (-1, dim)) for w in (w_q, w_k, w_v))
    angles = rope_angles(torch.arange(length), dim)
    k, v = (t.repeat_interleave(heads // kv_heads, dim=2) for t in (apply_rope(k, *angles), v))
    logits = torch.einsum("bqhd,bkhd->bhqk", apply_rope(q, *angles), k) / dim**0.5
    logits = logits.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    expected = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2) @ module.out.weight.T
    torch.testing.assert_close(module(x), expected)

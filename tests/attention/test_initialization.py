import math

import pytest
import torch

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.ops import materialise


def spread(weight):
    return weight.double().std().item()


def factor_weights(module):
    return module.split(module.factors.weight)


def test_upstream_spread_depends_on_the_rank():
    c, h, d = 1024, 47, 64
    weights = factor_weights(TPAConfig(h, d).build(c))
    for name, rank in (("q", 6), ("k", 2), ("v", 2)):
        assert spread(weights[f"a_{name}"]) == pytest.approx(math.sqrt(2 / (rank * (h + c))), rel=0.02)
        assert spread(weights[f"b_{name}"]) == pytest.approx(math.sqrt(2 / (d * (rank + c))), rel=0.02)


def test_paper_spread_is_xavier_of_each_matrix():
    c, h, d = 1024, 47, 64
    upstream = TPAConfig(h, d).build(c)
    paper = TPAConfig(h, d).build(c)
    paper.reset_parameters("paper")
    ratio = {n: spread(w) / spread(factor_weights(upstream)[n]) for n, w in factor_weights(paper).items()}
    assert ratio["a_q"] == pytest.approx(2.2, abs=0.05)
    assert ratio["b_q"] == pytest.approx(6.8, abs=0.15)
    assert spread(factor_weights(paper)["b_k"]) == pytest.approx(math.sqrt(2 / (2 * d + c)), rel=0.02)


@pytest.mark.parametrize("ranks", [(6, 2, 2), (1, 1, 1), (12, 4, 3)])
def test_variance_of_queries_keys_and_values_is_the_stated_one(ranks):
    module = TPAConfig(16, 32, *ranks).build(256)
    module.reset_parameters("variance", 0.2)
    x = torch.nn.functional.rms_norm(torch.randn(8, 200, 256), (256,))
    f = module.compute_factors(x)
    for a, b in ((f.a_q, f.b_q), (f.a_k, f.b_k), (f.a_v, f.b_v)):
        assert materialise(a, b).var().item() == pytest.approx(0.2, rel=0.1)


def test_multi_head_schemes():
    module = MultiHeadConfig(16, 2, 32).build(512)
    q, k, v = module.qkv.weight.detach().split(module.config.projection_rows)
    assert spread(q) == pytest.approx(math.sqrt(1 / 3 / 512), rel=0.02)
    module.reset_parameters("paper")
    assert spread(k) == pytest.approx(math.sqrt(2 / (64 + 512)), rel=0.02)
    module.reset_parameters("variance", 0.5)
    x = torch.nn.functional.rms_norm(torch.randn(2000, 512), (512,))
    assert (x @ v.T).var().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    ("scheme", "variance", "message"),
    [
        ("xavier", None, "init='xavier' is not an initialisation; expected upstream, paper or variance"),
        ("variance", None, "init=variance needs init_variance > 0"),
        ("variance", -1.0, "got -1.0"),
        ("paper", 0.1, "init_variance=0.1 is read by init=variance only, but init=paper"),
    ],
)
def test_schemes_that_make_no_sense(scheme, variance, message):
    with pytest.raises(ValueError, match=message):
        TPAConfig(2, 8).build(16).reset_parameters(scheme, variance)

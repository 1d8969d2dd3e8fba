"""Small models, one a mechanism, for tests of caches and generation."""

import torch

from lit_t6.attention import AttentionConfig, MultiHeadConfig, TPAConfig
from lit_t6.model import T6Config, T6Model

MECHANISMS: dict[str, AttentionConfig] = {
    "mha": MultiHeadConfig(3, None, 8),
    "gqa": MultiHeadConfig(4, 2, 8),
    "tpa": TPAConfig(3, 8, 4, 2, 2),
}


def build(mechanism, max_seq_len=16):
    """A model in float64 whose weights are all random, zero-initialised projections too."""
    model = T6Model(T6Config(29, max_seq_len, 24, 2, MECHANISMS[mechanism], multiple_of=8)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()

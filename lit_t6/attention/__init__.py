"""Attention mechanisms: a configuration and a module each, usable in anybody's network."""

from lit_t6.attention.base import AttentionConfig, AttentionModule
from lit_t6.attention.budget import (
    AttentionBudget,
    attention_budget,
    compare_budgets,
    is_unequal,
    measure_budget,
    solve_num_heads,
)
from lit_t6.attention.cache import AttentionCache, FactorCache, KeyValueCache, LatentCache
from lit_t6.attention.initialization import InitScheme, check_init
from lit_t6.attention.latent import LatentAttention, LatentConfig
from lit_t6.attention.mfa import MFAConfig, MultiMatrixFactorizationAttention
from lit_t6.attention.multi_head import MultiHeadAttention, MultiHeadConfig
from lit_t6.attention.registry import comparable_numbers, mechanisms, short_names
from lit_t6.attention.rotary import RotaryEmbedding
from lit_t6.attention.rotary_config import RotaryAttentionConfig
from lit_t6.attention.tpa import TensorProductAttention
from lit_t6.attention.tpa_config import TPAConfig

__all__ = [
    "AttentionBudget",
    "AttentionCache",
    "AttentionConfig",
    "AttentionModule",
    "FactorCache",
    "InitScheme",
    "KeyValueCache",
    "LatentAttention",
    "LatentCache",
    "LatentConfig",
    "MFAConfig",
    "MultiHeadAttention",
    "MultiHeadConfig",
    "MultiMatrixFactorizationAttention",
    "RotaryAttentionConfig",
    "RotaryEmbedding",
    "TPAConfig",
    "TensorProductAttention",
    "attention_budget",
    "check_init",
    "comparable_numbers",
    "compare_budgets",
    "is_unequal",
    "measure_budget",
    "mechanisms",
    "short_names",
    "solve_num_heads",
]

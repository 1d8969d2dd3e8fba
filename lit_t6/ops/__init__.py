"""Arithmetic on tensors: RoPE, masks, dense attention, tensor product attention, cross-entropy. Knows no modules."""

from lit_t6.ops.attention import cached_attention, dense_attention
from lit_t6.ops.implementation import Impl, check_impl
from lit_t6.ops.linear_cross_entropy import linear_cross_entropy
from lit_t6.ops.masks import cache_visibility, visibility
from lit_t6.ops.rope import apply_rope, rope_angles
from lit_t6.ops.tpa import (
    TPAFactors,
    effective_rank,
    head_groups,
    materialise,
    outer_features,
    tpa_attention,
    tpa_decode,
)

__all__ = [
    "Impl",
    "TPAFactors",
    "apply_rope",
    "cache_visibility",
    "cached_attention",
    "check_impl",
    "dense_attention",
    "effective_rank",
    "head_groups",
    "linear_cross_entropy",
    "materialise",
    "outer_features",
    "rope_angles",
    "tpa_attention",
    "tpa_decode",
    "visibility",
]

"""Tensor product attention on factors; README.md beside this file has the derivation."""

from lit_t6.ops.tpa.api import tpa_attention, tpa_decode
from lit_t6.ops.tpa.effective_rank import effective_rank
from lit_t6.ops.tpa.factors import TPAFactors, head_groups, materialise, outer_features
from lit_t6.ops.tpa.reference import tpa_attention_reference, tpa_decode_reference

__all__ = [
    "TPAFactors",
    "effective_rank",
    "head_groups",
    "materialise",
    "outer_features",
    "tpa_attention",
    "tpa_attention_reference",
    "tpa_decode",
    "tpa_decode_reference",
]

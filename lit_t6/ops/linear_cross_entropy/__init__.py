"""Cross-entropy of a linear layer's logits, some tokens at a time; README.md beside this file has the derivation."""

from lit_t6.ops.linear_cross_entropy.api import linear_cross_entropy
from lit_t6.ops.linear_cross_entropy.reference import Reduction, linear_cross_entropy_reference

__all__ = ["Reduction", "linear_cross_entropy", "linear_cross_entropy_reference"]

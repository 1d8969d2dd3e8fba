"""Tools for tests, ours and those of whoever adds a mechanism. Imports nothing else of the package."""

from lit_t6.testing.attention_contract import CONTRACT
from lit_t6.testing.tolerances import assert_as_exact_as

__all__ = ["CONTRACT", "assert_as_exact_as"]

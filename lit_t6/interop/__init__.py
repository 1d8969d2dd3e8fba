"""Checkpoints of other people: the authors' own models, read and made ours."""

from lit_t6.interop.archs import UPSTREAM_ARCHS, find_arch
from lit_t6.interop.layout import archs_that_fit
from lit_t6.interop.reading import read_upstream
from lit_t6.interop.upstream import from_upstream, plain_weights

__all__ = ["UPSTREAM_ARCHS", "archs_that_fit", "find_arch", "from_upstream", "plain_weights", "read_upstream"]

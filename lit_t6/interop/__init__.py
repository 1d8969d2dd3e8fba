"""Checkpoints of other people: the authors' own models, read and made ours."""

from typing import TYPE_CHECKING

from lit_t6.interop.archs import UPSTREAM_ARCHS, find_arch
from lit_t6.lazy_names import lazy_names

if TYPE_CHECKING:
    from lit_t6.interop.layout import archs_that_fit
    from lit_t6.interop.reading import read_upstream
    from lit_t6.interop.upstream import from_upstream, plain_weights

__all__ = ["UPSTREAM_ARCHS", "archs_that_fit", "find_arch", "from_upstream", "plain_weights", "read_upstream"]

_HOMES = {
    "archs_that_fit": "lit_t6.interop.layout",
    "from_upstream": "lit_t6.interop.upstream",
    "plain_weights": "lit_t6.interop.upstream",
    "read_upstream": "lit_t6.interop.reading",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)  # `convert --help` does not wait for PyTorch

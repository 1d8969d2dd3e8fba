"""Checkpoints of other people: the authors' own models, read and made ours."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from lit_t6.interop.archs import UPSTREAM_ARCHS, find_arch

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


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch when it is first used: `convert --help` does not wait for it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_") and find_spec(f"lit_t6.interop.{name}"):
        return import_module(f"lit_t6.interop.{name}")
    raise AttributeError(f"module 'lit_t6.interop' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All that can be asked for, whether it is imported yet or not."""
    return sorted({*globals(), *__all__, *(module.name for module in iter_modules(__path__))})

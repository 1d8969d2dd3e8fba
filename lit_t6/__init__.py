"""lit_t6: tensor product attention as a PyTorch Lightning experiment package (arXiv 2501.06425)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_t6.data import TokenDataModule
    from lit_t6.model import T6Config, T6Model
    from lit_t6.training import LitT6

__version__ = "0.1.0"
__all__ = ["LitT6", "T6Config", "T6Model", "TokenDataModule"]

_HOMES = {
    "LitT6": "lit_t6.training",
    "T6Config": "lit_t6.model",
    "T6Model": "lit_t6.model",
    "TokenDataModule": "lit_t6.data",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: who wants only `lit_t6.ops` need not wait for Lightning."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lit_t6' has no attribute {name!r}")

"""lit_t6: tensor product attention as a PyTorch Lightning experiment package (arXiv 2501.06425)."""

from typing import TYPE_CHECKING

from lit_t6.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)  # who wants only `lit_t6.ops` need not wait for Lightning

"""Names that a package hands on when they are first used, so that nobody waits for what he does not need."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package: its public names, and its modules, whether imported yet or not.

    Args:
        package: its `__name__`; it has `__all__`.
        homes: the module of each name that is not imported at once.
    """

    def find(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        if not name.startswith("_") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        there = vars(sys.modules[package])
        modules = (module.name for module in iter_modules(there["__path__"]))
        return sorted({*there, *there["__all__"], *(name for name in modules if not name.startswith("_"))})

    return find, names

"""The implementations that an operator can be asked for."""

from importlib.util import find_spec
from typing import Literal, get_args

Impl = Literal["auto", "reference", "triton"]
_IMPLS = get_args(Impl)

HAS_TRITON = find_spec("triton") is not None


def check_impl(impl: str) -> None:
    """Raise ValueError unless `impl` names an implementation.

    Raises:
        ValueError: with the name and those that exist.
    """
    if impl not in _IMPLS:
        raise ValueError(f"impl={impl!r} is not an implementation; expected one of {', '.join(_IMPLS)}.")

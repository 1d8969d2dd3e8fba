"""Progress bars of long looks at data."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Iterable[Any] | None = None, *, hidden: bool = False, **options: Any) -> tqdm:
    """A bar of tqdm on the standard error in a terminal; elsewhere, as in a log file, it writes nothing.

    Args:
        iterable: to go through; else the bar is updated by hand.
        hidden: write nothing in a terminal either.
        **options: of tqdm.
    """
    return tqdm(iterable, dynamic_ncols=True, disable=True if hidden else None, **options)

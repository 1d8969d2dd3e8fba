"""What loads PyTorch and Lightning is done in a process of its own, by commands that have no other use for them."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def apart(function: Callable[..., T], *arguments: object) -> T:
    """What a function gives or raises, in another process.

    Args:
        function: of a module.
        *arguments: of the function.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()

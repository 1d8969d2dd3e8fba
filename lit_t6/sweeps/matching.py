"""Head counts with which models of different mechanisms or ranks have as many parameters as one of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from lit_t6.model_reader import ModelSizes


def match_heads(words: Mapping[str, Sequence[str]], baseline: str, match_to: int | None) -> dict[str, int]:
    """Head counts that bring whole models nearest to a number of parameters.

    Args:
        words: options of each cell, by its name.
        baseline: the cell whose parameters are aimed at, and which keeps its heads; empty for none.
        match_to: the number of parameters aimed at; None for the baseline's.

    Returns:
        The head count of each cell, but for a baseline that is aimed at.

    Raises:
        ValueError: what `fit` refuses of a model, or no head count that will do, with the name of the cell.
    """
    sizes = ModelSizes()
    for name, options in words.items():
        with _said_of(name):
            sizes.add(name, options, heads=name == baseline)
    aimed_at = match_to if match_to is not None else sizes.num_parameters(baseline)
    heads: dict[str, int] = {}
    for name in words:
        if name == baseline and match_to is None:
            continue
        with _said_of(name, "match: parameters: "):
            heads[name] = sizes.heads_for(name, aimed_at)
    return heads


@contextmanager
def _said_of(cell: str, setting: str = "") -> Iterator[None]:
    """Give an error the name of the cell, and of the setting that led to it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"cell {cell!r}: {setting}{error}") from error

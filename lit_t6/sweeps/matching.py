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
        keeps = name == baseline and match_to is None
        with _said_of(name, keeps_heads=keeps):
            sizes.add(name, options, heads=keeps)
    aimed_at = match_to if match_to is not None else sizes.num_parameters(baseline)
    heads: dict[str, int] = {}
    for name in words:
        if name == baseline and match_to is None:
            continue
        with _said_of(name, "match: parameters: ", keeps_heads=False):
            heads[name] = sizes.heads_for(name, aimed_at)
    return heads


@contextmanager
def _said_of(cell: str, setting: str = "", keeps_heads: bool = True) -> Iterator[None]:
    """Give an error the name of the cell, and of the setting that led to it, and what can be done about it there."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        if not keeps_heads:
            said = said.replace(
                "or set num_heads yourself.", "leave this cell out, or write match: none and set num_heads yourself."
            )
        raise ValueError(f"cell {cell!r}: {setting}{said}") from error

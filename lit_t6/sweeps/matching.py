"""Head counts with which models of different mechanisms or ranks have as many parameters as one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lit_t6.attention import solve_num_heads
from lit_t6.command_line.options import arrange
from lit_t6.model import T6Config
from lit_t6.model_reader import ModelReader

_OF_THE_TRAINING = ("--model.optimizer", "--model.compile", "--model.recompute")


def read_model(words: Sequence[str], reader: ModelReader) -> T6Config:
    """The model of some options of `fit`, those that do not concern it left aside.

    Args:
        words: options as `lit_t6.sweeps.cells.fit_options` gives them.
        reader: made once for many.

    Raises:
        ValueError: what `fit` refuses of the model.
    """
    kept: list[str] = []
    arranged = arrange(words)
    for word, following in zip(arranged, [*arranged[1:], ""], strict=True):
        if word in ("--config", "--model.attention"):
            kept += [word, following]
        elif word.startswith("--model.attention.class_path"):
            kept += [word, following] if "=" not in word else [word]
        elif word.startswith("--model.") and not word.startswith(_OF_THE_TRAINING):
            kept.append(word) if "=" in word else kept.extend([word, following])
    return reader.read(kept)


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
    reader = ModelReader()
    models: dict[str, T6Config] = {}
    for name, options in words.items():
        try:
            models[name] = read_model(options, reader)
            if name == baseline:
                models[name] = models[name].resolved()
        except ValueError as error:
            raise ValueError(f"cell {name!r}: {error}") from error
    target = match_to if match_to is not None else models[baseline].num_parameters()
    heads: dict[str, int] = {}
    for name, model in models.items():
        if name == baseline and match_to is None:
            continue
        try:
            heads[name] = _solve(model, target)
        except ValueError as error:
            raise ValueError(f"cell {name!r}: match: parameters: {error}") from error
    return heads


def _solve(model: T6Config, target: int) -> int:
    some = replace(model, attention=model.attention.with_num_heads(model.attention.num_heads_multiple))
    beside = some.num_parameters() - some.num_layers * some.attention.num_parameters(some.d_model)
    if beside >= target:
        raise ValueError(
            f"without attention the model has {beside:,} parameters already, and {target:,} are aimed at; make it "
            f"narrower or take fewer layers."
        )
    return solve_num_heads(model.attention, model.d_model, (target - beside) // model.num_layers).heads()

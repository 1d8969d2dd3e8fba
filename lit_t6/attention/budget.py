"""Head counts at a parameter budget (paper Tables 9 and 10)."""

from typing import TypeVar

from lit_t6.attention.base import AttentionConfig

ConfigT = TypeVar("ConfigT", bound=AttentionConfig)


def attention_budget(d_model: int) -> int:
    """4·d_model²: the weights of plain multi-head attention with H·D = d_model, the paper's budget of a layer."""
    return 4 * d_model**2


def solve_num_heads(config: ConfigT, d_model: int, budget: int | None = None) -> ConfigT:
    """The same mechanism with the head count whose weights come nearest to a budget.

    Every mechanism's count of weights is linear in the number of heads, so two counts give the line.

    Args:
        config: its `num_heads` is ignored.
        d_model: C.
        budget: weights of one layer's attention; 4·C² if not given.

    Returns:
        A copy with `num_heads` set, a multiple of `config.num_heads_multiple`.

    Raises:
        ValueError: not even the smallest head count fits.
    """
    budget = attention_budget(d_model) if budget is None else budget
    step = config.num_heads_multiple
    at_one, at_two = (config.with_num_heads(n * step).num_parameters(d_model) for n in (1, 2))
    exact = 1 + (budget - at_one) / (at_two - at_one)
    solved = int(exact + 0.5)
    if solved < 1:
        raise ValueError(
            f"{config.label}: no head count meets the budget of {budget:,} parameters a layer at d_model={d_model}: "
            f"{step} head{'s' if step > 1 else ''} of size {config.head_dim} already take{'' if step > 1 else 's'} "
            f"{at_one:,}. Lower head_dim or the ranks, raise d_model, or set num_heads yourself."
        )
    return config.with_num_heads(solved * step)

"""What a mechanism costs (paper Table 1 and appendix A.4), and head counts at a parameter budget (Tables 9 and 10)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from lit_t6.attention.base import AttentionConfig
from lit_t6.attention.multi_head import MultiHeadConfig

ConfigT = TypeVar("ConfigT", bound=AttentionConfig)


UNEQUAL = 0.05
"""A layer's attention whose weights are this share away from the budget is no fair comparison: people are told."""


def attention_budget(d_model: int) -> int:
    """4·d_model²: the weights of plain multi-head attention with H·D = d_model, the paper's budget of a layer."""
    return 4 * d_model**2


def is_unequal(share: float) -> bool:
    """Whether weights are too far from the budget for a fair comparison.

    Args:
        share: weights of a layer's attention over `attention_budget`.
    """
    return abs(share - 1) > UNEQUAL


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


@dataclass(frozen=True)
class AttentionBudget:
    """Costs of one mechanism at a model width; a multiply-add is two FLOPs.

    "per_layer" is said where it holds; the other totals are over all layers. Ratios "over_mha" are to multi-head
    attention at the same width and head size, with the head count that meets the budget of 4·d_model² parameters.

    Args:
        mechanism: label of the configuration.
        num_heads: H.
        head_dim: D.
        parameters_per_layer: weights of the attention (Table 1; those of norms come on top).
        parameters_over_budget: these over 4·d_model².
        parameters_over_mha: these over MHA's.
        projection_flops_per_token_per_layer: 2 × the weights that multiply a token, forward.
        projection_flops_over_mha: these over MHA's.
        cache_numbers_per_token_per_layer: what decoding keeps of a token (Table 1).
        cache_bytes_per_token: the same, in bytes, in all layers.
        cache_over_mha: cached numbers over MHA's.
        decode_multiply_adds_per_cached_token_per_layer: of a new token's attention with the cache (A.4).
        decode_flops_per_cached_token_per_layer: twice as many.
        decode_over_mha: these over MHA's.
        attention_flops_per_token_per_layer: of a forward pass over `seq_len` tokens, causal, on average over them,
            beyond those of the projections. A training step takes three times as many.
        seq_len: tokens of that sequence.
    """

    mechanism: str
    num_heads: int
    head_dim: int
    parameters_per_layer: int
    parameters_over_budget: float
    parameters_over_mha: float
    projection_flops_per_token_per_layer: int
    projection_flops_over_mha: float
    cache_numbers_per_token_per_layer: int
    cache_bytes_per_token: int
    cache_over_mha: float
    decode_multiply_adds_per_cached_token_per_layer: int
    decode_flops_per_cached_token_per_layer: int
    decode_over_mha: float
    attention_flops_per_token_per_layer: float
    seq_len: int


def measure_budget(
    config: AttentionConfig, d_model: int, *, num_layers: int = 1, bytes_per_number: int = 2, seq_len: int = 1024
) -> AttentionBudget:
    """What a mechanism costs; no weights are made.

    Args:
        config: its `num_heads`, if null, is solved for the budget.
        d_model: C.
        num_layers: L, layers that each keep a cache.
        bytes_per_number: of the cache: 2 for bfloat16, 4 for float32.
        seq_len: tokens of a training sequence.

    Raises:
        ValueError: no head count meets the budget.
    """
    config = config if config.num_heads is not None else solve_num_heads(config, d_model)
    mha = multi_head_reference(config.head_dim, d_model)
    parameters, cached = config.num_parameters(d_model), config.cache_numbers_per_token()
    projections = config.projection_flops_per_token(d_model)
    multiply_adds = config.decode_multiply_adds_per_cached_token()
    return AttentionBudget(
        mechanism=config.label,
        num_heads=config.heads(),
        head_dim=config.head_dim,
        parameters_per_layer=parameters,
        parameters_over_budget=parameters / attention_budget(d_model),
        parameters_over_mha=parameters / mha.num_parameters(d_model),
        projection_flops_per_token_per_layer=projections,
        projection_flops_over_mha=projections / mha.projection_flops_per_token(d_model),
        cache_numbers_per_token_per_layer=cached,
        cache_bytes_per_token=cached * bytes_per_number * num_layers,
        cache_over_mha=cached / mha.cache_numbers_per_token(),
        decode_multiply_adds_per_cached_token_per_layer=multiply_adds,
        decode_flops_per_cached_token_per_layer=2 * multiply_adds,
        decode_over_mha=multiply_adds / mha.decode_multiply_adds_per_cached_token(),
        attention_flops_per_token_per_layer=config.attention_flops_per_token(seq_len),
        seq_len=seq_len,
    )


def compare_budgets(
    configs: Iterable[AttentionConfig],
    d_model: int,
    *,
    num_layers: int = 1,
    bytes_per_number: int = 2,
    seq_len: int = 1024,
) -> list[AttentionBudget]:
    """`measure_budget` of each configuration, in order; its arguments and errors."""
    return [
        measure_budget(c, d_model, num_layers=num_layers, bytes_per_number=bytes_per_number, seq_len=seq_len)
        for c in configs
    ]


def multi_head_reference(head_dim: int, d_model: int) -> MultiHeadConfig:
    """Multi-head attention that meets the budget with heads of a size, for ratios.

    Raises:
        ValueError: a single head of that size is over the budget.
    """
    whole_pairs = head_dim // 2 * 2 / head_dim  # RoPE costs nothing here; an odd size leaves a feature unrotated
    return solve_num_heads(MultiHeadConfig(head_dim=head_dim, rope_fraction=whole_pairs), d_model)

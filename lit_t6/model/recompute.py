"""Activation checkpointing (Chen et al., arXiv 1604.06174): what is not kept for the way back is made again there.

What attention computed takes the square of the length to make, and little to keep, since fused kernels keep no weights:
"selective" keeps it. (Korthikanti et al., arXiv 2205.05198, do the reverse: their kernels kept them.)
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "selective", "full"]
"""What of a block is computed again in its backward pass.

`none`: nothing. `selective`: all but attention and the two output projections; of a token, the two inputs of the norms
and what the heads read are kept. `full`: the whole block; its input is kept.
"""

_ATTENTION = ("aten::_scaled_dot_product_", "lit_t6::causal_attention", "lit_t6::factor_attention")
"""How operators of attention are called."""


def check_recompute(recompute: str) -> None:
    """Raise ValueError unless `recompute` names what is computed again.

    Raises:
        ValueError: with the name and those that exist.
    """
    if recompute not in get_args(Recompute):
        raise ValueError(f"recompute={recompute!r}: expected one of {', '.join(get_args(Recompute))}.")


def recomputed(run: Callable[..., Tensor], *arguments: Any, keep_attention: bool) -> Tensor:
    """The result of a function, of which the arguments are kept and what it needs for its gradients is made again.

    Args:
        run: draws no random numbers.
        arguments: of it; gradients flow to the tensors among them.
        keep_attention: what operators of attention give is kept too.
    """
    settings: dict[str, Any] = {"context_fn": _keeping_attention} if keep_attention else {}
    result = checkpoint(run, *arguments, use_reentrant=False, preserve_rng_state=False, **settings)
    assert isinstance(result, Tensor)
    return result


def _keeping_attention() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    contexts: tuple[AbstractContextManager[Any], AbstractContextManager[Any]]
    contexts = create_selective_checkpoint_contexts(_policy)
    return contexts


def _policy(_context: Any, operator: Any, *_arguments: Any, **_settings: Any) -> CheckpointPolicy:
    kept = operator.name().startswith(_ATTENTION)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

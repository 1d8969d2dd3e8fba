"""The factors of tensor product attention, and the queries, keys and values that they stand for.

Letters: B batch, T positions, R rank (Rq, Rk, Rv), H heads, D head size of queries and keys, E of values.
Factors are rank-major, as in the paper: an A is (B, T, R, H), a B is (B, T, R, D).
"""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_RANK = 32
"""Of factors that kernels make heads of; as the next two."""
MAX_HEADS = 128
MAX_SIZE = 128
MAX_BATCH = 65535
"""Of sequences that one launch takes."""
SIZE_MULTIPLE = 8
"""Of head sizes on a GPU, as PyTorch's fused attention wants them."""


class TPAFactors(NamedTuple):
    """The six factors of a sequence (paper section 3.1). The ranks of queries, keys and values are independent.

    Any of them may be a stride-0 expand of a parameter (a static factor).
    """

    a_q: Tensor  # (B, T, Rq, H)
    b_q: Tensor  # (B, T, Rq, D), rotated
    a_k: Tensor  # (B, T, Rk, H)
    b_k: Tensor  # (B, T, Rk, D), rotated
    a_v: Tensor  # (B, T, Rv, H)
    b_v: Tensor  # (B, T, Rv, E)


def materialise(a: Tensor, b: Tensor) -> Tensor:
    """(1/R) Σ_r a_r ⊗ b_r: queries, keys or values from their factors (paper equation 3.1).

    Args:
        a: head factors (B, T, R, H).
        b: feature factors (B, T, R, D).

    Returns:
        (B, T, H, D).
    """
    return torch.einsum("btrh,btrd->bthd", a, b) / a.shape[-2]


def outer_features(b: Tensor, c: Tensor) -> Tensor:
    """vec(b ⊗ c): the rows of B of third-order attention (paper appendix C), c the slow axis.

    Rotating b rotates every one of the Dc blocks of the result alike (theorem C.1).

    Args:
        b: (…, Db).
        c: (…, Dc).

    Returns:
        (…, Dc·Db).
    """
    return (c[..., :, None] * b[..., None, :]).flatten(-2)


def head_groups(
    num_groups: int, num_heads: int, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """The fixed A with which dense heads are tensor products: G·(1 where group g serves head h) (paper section 4).

    Args:
        num_groups: G, dense heads; 1 gives MQA's row of ones, H gives H times the identity.
        num_heads: H, a multiple of G.
        dtype: of the result.
        device: of the result.

    Returns:
        (G, H).
    """
    groups = torch.eye(num_groups, dtype=dtype, device=device)
    return num_groups * groups.repeat_interleave(num_heads // num_groups, dim=1)


def check_factors(factors: TPAFactors) -> None:
    """Raise ValueError unless the six factors of a sequence fit together.

    Raises:
        ValueError: naming the first factor that does not fit, its shape and the expected one.
    """
    check_decode_factors(*factors, num_keys=factors.a_q.shape[1] if factors.a_q.ndim == 4 else None)


def check_decode_factors(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor,
    b_k: Tensor,
    a_v: Tensor,
    b_v: Tensor,
    c_k: Tensor | None = None,
    c_v: Tensor | None = None,
    *,
    num_keys: int | None = None,
) -> None:
    """Raise ValueError unless queries and cached factors, as `tpa_decode` takes them, fit together.

    `num_keys` is M; that of `a_k` if not given.

    Raises:
        ValueError: naming the first factor that does not fit, its shape and the expected one.
    """
    given = {"a_q": a_q, "b_q": b_q, "a_k": a_k, "b_k": b_k, "a_v": a_v, "b_v": b_v, "c_k": c_k, "c_v": c_v}
    named = {name: factor for name, factor in given.items() if factor is not None}
    for name, factor in named.items():
        if factor.ndim != 4:
            raise ValueError(f"{name} has shape {tuple(factor.shape)}, expected 4 dimensions: (B, T, R, n).")
    batch, num_queries, _, head_dim = b_q.shape
    heads = a_k.shape[-1] if a_q is None else a_q.shape[-1]
    num_keys = a_k.shape[1] if num_keys is None else num_keys
    for name, factor in named.items():
        letter = name[-1]
        length = num_queries if letter == "q" else num_keys
        rank = named.get(f"a_{letter}", b_q).shape[-2] if a_q is not None or letter != "q" else heads
        last = heads if name[0] == "a" else factor.shape[-1]
        if name == "b_k":
            outer = 1 if c_k is None else c_k.shape[-1]
            if head_dim % outer:
                raise ValueError(f"c_k has {outer} features, which do not divide the queries' {head_dim}.")
            last = head_dim // outer
        shape = tuple(factor.shape)
        if shape != (batch, length, rank, last):
            raise ValueError(
                f"{name} has shape {shape}, expected {(batch, length, rank, last)}: (batch, positions, rank, "
                f"{'heads' if name[0] == 'a' else 'features'}), ranks equal within a pair a, b."
            )

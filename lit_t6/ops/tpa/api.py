"""The ways in: checks the arguments, chooses the implementation, runs it."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_t6.ops.attention import dense_attention
from lit_t6.ops.implementation import HAS_TRITON, Impl, check_impl
from lit_t6.ops.masks import check_rows
from lit_t6.ops.rope import apply_rope
from lit_t6.ops.tpa.decode import tpa_decode_matmul
from lit_t6.ops.tpa.factors import (
    TPAFactors,
    check_decode_factors,
    check_factors,
    head_groups,
    materialise,
    outer_features,
)
from lit_t6.ops.tpa.packed_rows import cut_factors
from lit_t6.ops.tpa.reference import tpa_attention_reference, tpa_decode_reference


def tpa_attention(
    factors: TPAFactors,
    *,
    causal: bool = True,
    lengths: Tensor | None = None,
    document_ids: Tensor | None = None,
    scale: float | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Tensor product attention over a whole sequence (paper section 3.1).

    Args:
        factors: the six factors, a_*: (B, T, R, H), b_*: (B, T, R, D or E); b_q and b_k already rotated.
        causal: position t sees positions 0 … t only.
        lengths: (B,) integers: valid positions of each row, default all.
        document_ids: (B, T) integers: positions of other documents are not seen.
        scale: of the logits; 1/√D if not given.
        impl: "reference" is the plain einsum of the paper's Algorithm 1; "triton" forms Q, K and V by a kernel, calls
            PyTorch's fused attention, and keeps the factors alone for the way back, where it forms them again; "auto"
            on a GPU "triton" where it can run, else plain products and PyTorch's fused attention.

    Returns:
        (B, T, H, E). A query that sees nothing gives zeros.

    Raises:
        ValueError: factors that do not fit together, an unknown `impl`, or what the "triton" one cannot take, with the
            reason.
    """
    check_impl(impl)
    check_factors(factors)
    check_rows(*factors.a_q.shape[:2], lengths=lengths, document_ids=document_ids)
    if impl == "reference":
        return tpa_attention_reference(factors, causal=causal, lengths=lengths, document_ids=document_ids, scale=scale)
    if impl == "triton" or (impl == "auto" and factors.a_q.is_cuda):
        masked = not causal or lengths is not None or document_ids is not None
        if torch.is_autocast_enabled(factors.a_q.device.type):  # whose rules do not reach into operators of ours
            dtype = torch.get_autocast_dtype(factors.a_q.device.type)
            factors = TPAFactors(*(factor.to(dtype) for factor in factors))
        read = attend_by_factors(*factors, masked=masked, scale=scale, impl=impl)
        if read is not None:
            return read
    a_q, b_q, a_k, b_k, a_v, b_v = factors
    return dense_attention(
        materialise(a_q, b_q),
        materialise(a_k, b_k),
        materialise(a_v, b_v),
        causal=causal,
        lengths=lengths,
        document_ids=document_ids,
        scale=scale,
    )


def tpa_decode(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor,
    b_k: Tensor,
    a_v: Tensor,
    b_v: Tensor,
    *,
    c_k: Tensor | None = None,
    c_v: Tensor | None = None,
    lengths: Tensor | None = None,
    scale: float | None = None,
    rope: tuple[Tensor, Tensor] | None = None,
    zero_padding: bool = False,
    impl: Impl = "auto",
) -> Tensor:
    """Attention of N new tokens to a cache of factors, causal among themselves (paper Algorithms 2 and 3).

    Args:
        a_q: head factors of the new queries (B, N, Rq, H); None for dense queries.
        b_q: their feature factors (B, N, Rq, D), or the dense queries (B, N, H, D), rotated.
        a_k: of the cached keys (B, M, Rk, H), those of the new tokens included.
        b_k: (B, M, Rk, D), rotated unless there is `rope`; of third order, (B, M, Rk, Db).
        a_v: of the cached values (B, M, Rv, H).
        b_v: (B, M, Rv, E); of third order, (B, M, Rv, Eb).
        c_k: of third order, (B, M, Rk, D / Db): the keys' rows of B are `outer_features(b_k, c_k)`.
        c_v: of third order, (B, M, Rv, E / Eb).
        lengths: (B,) integers: valid entries of each row, M if not given, and at most M, which is not checked; query n
            sees the first lengths - N + n + 1.
        scale: of the logits; 1/√D if not given.
        rope: cosines and sines (at least M, P / 2) from `rope_angles` with which to rotate a `b_k` that is not rotated,
            entry m by row m.
        zero_padding: rows of `a_k` and `a_v` that do not end at a multiple of 16 bytes are followed by zeros up to it,
            as in a `FactorCache`: some head counts, such as 47, are faster then.
        impl: "reference" is the plain einsum; "triton" the FlashTPA kernel, which reads each factor once and writes
            nothing but the result; "auto" the fastest there is for the tensors: on a GPU "triton" where it can run,
            else matrix products that form neither keys nor values for few queries, and both for many.

    Returns:
        (B, N, H, E), in the type of `b_q`. A query that sees nothing gives zeros.

    Raises:
        ValueError: factors that do not fit together, `lengths` of another shape, an unknown `impl`, or tensors that
            the "triton" one cannot take, with the reason.
    """
    check_impl(impl)
    fast = impl == "triton" or (impl == "auto" and a_k.is_cuda)
    if fast and HAS_TRITON and not torch.compiler.is_compiling():
        again = _decode_again()(a_q, b_q, (a_k, b_k, c_k, a_v, b_v, c_v), rope, lengths, scale, zero_padding)
        if again is not None:
            return again
    check_decode_factors(a_q, b_q, a_k, b_k, a_v, b_v, c_k, c_v)
    num_heads = a_k.shape[-1]
    batch, num_keys = a_k.shape[:2]
    check_rows(batch, num_keys, lengths=lengths, document_ids=None)
    if rope is not None:
        _check_rope(*rope, num_keys, b_k.shape[-1])
    if lengths is None:
        lengths = torch.full((batch,), num_keys, device=a_k.device)
    if fast:
        problem = flash_decode_cannot(a_q, b_q, a_k, b_k, a_v, b_v, c_v)
        if problem is None:
            from lit_t6.ops.tpa.flash_decode import flash_decode  # needs Triton

            tables = (None, None) if rope is None else rope
            return flash_decode(a_q, b_q, a_k, b_k, a_v, b_v, c_k, c_v, *tables, lengths, scale, zero_padding)
        if impl == "triton":
            raise ValueError(f"impl='triton' cannot decode this: {problem}. Use impl='auto'.")
    b_k = b_k if rope is None else apply_rope(b_k, rope[0][:num_keys], rope[1][:num_keys])
    b_k = b_k if c_k is None else outer_features(b_k, c_k)
    b_v = b_v if c_v is None else outer_features(b_v, c_v)
    if impl == "reference":
        if a_q is None:  # dense queries are factors with a fixed A
            groups = head_groups(num_heads, num_heads, dtype=b_q.dtype, device=b_q.device)
            a_q = groups.expand(*b_q.shape[:2], -1, -1)
        return tpa_decode_reference(TPAFactors(a_q, b_q, a_k, b_k, a_v, b_v), lengths=lengths, scale=scale)
    q = b_q if a_q is None else materialise(a_q, b_q)
    return tpa_decode_matmul(q, a_k, b_k, a_v, b_v, lengths=lengths, scale=scale)


def _check_rope(cos: Tensor, sin: Tensor, num_keys: int, size: int) -> None:
    if cos.shape != sin.shape or cos.ndim != 2:
        shapes = f"{tuple(cos.shape)} and {tuple(sin.shape)}"
        raise ValueError(f"rope: cosines and sines of shapes {shapes}, expected two of (M, P / 2).")
    if len(cos) < num_keys:
        raise ValueError(f"rope: angles of {len(cos)} positions, expected at least the cache's {num_keys}.")
    if 2 * cos.shape[1] > size:
        raise ValueError(f"rope: angles of {2 * cos.shape[1]} features, expected at most the {size} of b_k.")


def flash_decode_cannot(
    a_q: Tensor | None, b_q: Tensor, a_k: Tensor, b_k: Tensor, a_v: Tensor, b_v: Tensor, c_v: Tensor | None = None
) -> str | None:
    """Why the FlashTPA kernel cannot take arguments of `tpa_decode`; None if it can."""
    if not HAS_TRITON:
        return "Triton is not installed"
    from lit_t6.ops.tpa.flash_decode import why_not

    return why_not(a_q, b_q, a_k, b_k, a_v, b_v, c_v)


@functools.cache
def _decode_again() -> Callable[..., Tensor | None]:
    """Of the kernel's module, which needs Triton; by an import statement it would take a microsecond of every step."""
    from lit_t6.ops.tpa.flash_decode import decode_again

    return decode_again


def attend_by_factors(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor | None,
    b_k: Tensor,
    a_v: Tensor | None,
    b_v: Tensor,
    *,
    masked: bool,
    rope: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
    impl: Impl,
) -> Tensor | None:
    """What heads read of a whole sequence, by the kernels that keep factors, or None where they cannot.

    Args:
        a_q: as `factor_attention` takes it, and the others alike; where an a is None, the b are dense heads.
        b_q: likewise.
        a_k: likewise.
        b_k: likewise.
        a_v: likewise.
        b_v: likewise.
        masked: whether anything but the past of a position is hidden from it, or less.
        rope: by what b_q and b_k are turned; None if they are already.
        scale: of the logits; 1/√D if not given.
        impl: "triton" is by these kernels or not at all.

    Raises:
        ValueError: the "triton" ones cannot take these, with the reason.
    """
    problem = _factor_attention_cannot(a_q, b_q, a_k, b_k, a_v, b_v, masked=masked)
    if problem is None:
        from lit_t6.ops.tpa.factor_attention import factor_attention  # needs Triton

        return factor_attention(a_q, b_q, a_k, b_k, a_v, b_v, rope=rope, scale=scale)
    if impl == "triton":
        raise ValueError(f"impl='triton' cannot attend to this: {problem}. Use impl='auto'.")
    return None


def attend_packed(
    rows: Tensor, ranks: Sequence[int], num_heads: int, head_dim: int, rope: tuple[Tensor, Tensor]
) -> Tensor | None:
    """`attend_by_factors` of factors beside each other in the rows of one product; None where the kernels cannot.

    Args:
        rows: (B, T, C), as `lit_t6.ops.tpa.packed_rows.cut` takes them.
        ranks: Rq, Rk, Rv. An Rq of 0: queries are dense.
        num_heads: H.
        head_dim: D, of values too.
        rope: by what b_q, or dense queries, and b_k are turned.
    """
    if not HAS_TRITON:
        return None
    from lit_t6.ops.tpa.packed_attention import packed_attention  # needs Triton

    factors = [factor for pair in cut_factors(rows, ranks, num_heads, head_dim) for factor in pair]
    if _factor_attention_cannot(*factors, masked=False) is not None:
        return None
    return packed_attention(rows, ranks, num_heads, head_dim, rope)


def _factor_attention_cannot(*factors: Tensor | None, masked: bool) -> str | None:
    if not HAS_TRITON:
        return "Triton is not installed"
    if masked:
        return "lengths, document_ids or causal=False, expected plain causal attention"
    from lit_t6.ops.tpa.factor_attention import why_not

    return why_not(*factors)

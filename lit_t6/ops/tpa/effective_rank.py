"""How many directions a token's keys (or values) really use over its heads.

Letters: R rank, H heads, D head size.
"""

import torch
from torch import Tensor


def effective_rank(a: Tensor, b: Tensor) -> Tensor:
    """Effective rank of the matrices (1/R) Σ_r a_r ⊗ b_r: the exponential of the entropy of their singular values.

    It lies between 1 and min(R, H, D): 1 where all heads share one direction, R where R directions weigh the same
    (Roy and Vetterli, "The effective rank", EUSIPCO 2007). The (H, D) matrices are never formed: with QR factorisations
    of both factors, their singular values are those of an (R, R) matrix.

    Args:
        a: head factors (..., R, H).
        b: feature factors (..., R, D).

    Returns:
        (...), float32 at least; 1 for a matrix of zeros, NaN for one that is not finite.
    """
    finite = a.isfinite().all(dim=(-2, -1)) & b.isfinite().all(dim=(-2, -1))
    a, b = (factor.where(finite[..., None, None], 0) for factor in (a, b))  # LAPACK refuses what is not finite
    dtype = torch.promote_types(a.dtype, torch.float32)
    _, upper_a = torch.linalg.qr(a.to(dtype).mT, mode="r")
    _, upper_b = torch.linalg.qr(b.to(dtype).mT, mode="r")
    sigma = torch.linalg.svdvals(upper_a @ upper_b.mT)
    share = sigma / sigma.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
    return torch.special.entr(share).sum(dim=-1).exp().where(finite, torch.nan)

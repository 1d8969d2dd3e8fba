"""Which key each query may see."""

import torch
from torch import Tensor


def visibility(
    num_queries: int,
    num_keys: int,
    device: torch.device,
    *,
    causal: bool = True,
    lengths: Tensor | None = None,
    document_ids: Tensor | None = None,
) -> Tensor | None:
    """Boolean mask of the keys that each query sees, or None where every query sees every key.

    Args:
        num_queries: T; query t stands at position t.
        num_keys: M.
        device: where the mask is made.
        causal: query t sees keys 0 … t only.
        lengths: (B,) integers: valid keys of each row; later keys are seen by nobody.
        document_ids: (B, T) integers: a query sees the keys of its own document only; needs T = M.

    Returns:
        (1 or B, 1, T, M), true where visible; the second axis is for the heads.
    """
    mask: Tensor | None = None
    if causal:
        mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril()[None, None]
    if lengths is not None:
        valid = (torch.arange(num_keys, device=device) < lengths[:, None])[:, None, None, :]
        mask = valid if mask is None else mask & valid
    if document_ids is not None:
        same = (document_ids[:, :, None] == document_ids[:, None, :])[:, None]
        mask = same if mask is None else mask & same
    return mask


def cache_visibility(num_queries: int, num_keys: int, lengths: Tensor) -> Tensor:
    """Boolean mask of the cached keys that each of the newest tokens sees.

    Args:
        num_queries: N; the queries are the last N of the valid entries of their row.
        num_keys: M, entries of the cache.
        lengths: (B,) integers: valid entries of each row, the N new ones included.

    Returns:
        (B, 1, N, M): query n sees the first lengths - N + n + 1 entries.
    """
    seen = lengths[:, None] - num_queries + 1 + torch.arange(num_queries, device=lengths.device)
    return (torch.arange(num_keys, device=lengths.device) < seen[..., None])[:, None]


def check_rows(batch: int, length: int, *, lengths: Tensor | None, document_ids: Tensor | None) -> None:
    """Raise ValueError unless the descriptions of the rows have one entry a row, or a position.

    Raises:
        ValueError: naming the one that does not fit, its shape and the expected one, or that is of no whole numbers.
    """
    for name, value, shape in (("lengths", lengths, (batch,)), ("document_ids", document_ids, (batch, length))):
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {shape}.")
        if value is not None and value.is_floating_point():
            raise ValueError(f"{name} are {value.dtype}, expected whole numbers.")

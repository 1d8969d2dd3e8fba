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


def check_rows(batch: int, length: int, *, lengths: Tensor | None, document_ids: Tensor | None) -> None:
    """Raise ValueError unless the descriptions of the rows have one entry a row, or a position.

    Raises:
        ValueError: naming the one that does not fit, its shape and the expected one.
    """
    for name, value, shape in (("lengths", lengths, (batch,)), ("document_ids", document_ids, (batch, length))):
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {shape}.")

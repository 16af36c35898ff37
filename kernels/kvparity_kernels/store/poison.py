"""Slots that were never written: reading one gives NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity_kernels.store.format import FLOATS, StoreFormat


def poisoned(
    slots: int, kv_heads: int, head_dim: int, format: StoreFormat, device: torch.device | str
) -> tuple[Tensor, Tensor | None]:
    """Codes ``[slots, kv_heads, storage_width]`` and scales (as ``encode`` returns them) that read
    as NaN. Integers have no NaN, so theirs is in the scales; their codes are all ones.
    """
    shape = (slots, kv_heads, format.storage_width(head_dim))
    if format.name in FLOATS:
        return torch.full(shape, torch.nan, dtype=format.storage_dtype, device=device), None
    fill = 0x7F if format.static else 0xFF
    codes = torch.full(shape, fill, dtype=torch.uint8, device=device).view(format.storage_dtype)
    if format.static:
        return codes, None
    scales = (slots, kv_heads, format.groups(head_dim))
    return codes, torch.full(scales, torch.nan, device=device)

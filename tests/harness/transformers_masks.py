"""Masks as transformers asks the kvparity attention for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kvparity.subjects.hf import mask as masks


def causal(batch: int, head: int, q: Any, k: Any) -> Any:
    return k <= q


def window(size: int) -> Callable[..., Any]:
    return lambda batch, head, q, k: (k <= q) & (k > q - size)


def packed(batch: Any, head: Any, q: Any, k: Any) -> Any:
    return (k <= q) & ((k >= 3) == (q >= 3))


def make_mask(
    queries: int, keys: int, offset: int, real: Tensor | None = None, **more: Any
) -> Tensor:
    arguments = {
        "batch_size": 1 if real is None else len(real),
        "q_length": queries,
        "kv_length": keys,
        "q_offset": offset,  # transformers 5
        "cache_position": torch.arange(offset, offset + queries),  # transformers 4
        "kv_offset": 0,
        "mask_function": causal,
        "attention_mask": real,
    }
    return masks.make(**{**arguments, **more})

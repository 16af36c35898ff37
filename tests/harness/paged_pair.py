"""The naive pair over pages, and what can be wrong with such a decode."""

from __future__ import annotations

from typing import Any

import torch
from naive_pair import decode as over_caches
from naive_pair import prefill as prefill
from torch import Tensor

from kvparity_kernels.store import StoreFormat
from kvparity_kernels.store import decode as read


def decode(q: Tensor, k: Tensor, v: Tensor, *, block_table: Tensor, **more: Any) -> Any:
    """Gathers what the table says, and no page behind the last key."""
    size, used = k.shape[1], more["kv_lens"].tolist()
    rows = max(*used, 1)
    place = torch.arange(rows)
    slots = block_table.long()[:, place // size] * size + place % size
    return over_caches(q, *(x.flatten(0, 1)[slots] for x in (k, v)), **more)


def decode_in_order(*args: Any, block_table: Tensor, **more: Any) -> Any:
    """Pages are taken to lie one behind the other."""
    table = block_table[:, :1] + torch.arange(block_table.shape[1], dtype=torch.int32)
    return decode(*args, block_table=table % len(args[1]), **more)


def decode_first_table(*args: Any, block_table: Tensor, **more: Any) -> Any:
    """Every sequence reads the pages of the first."""
    return decode(*args, block_table=block_table[:1].expand_as(block_table), **more)


def decode_whole_pages(q: Tensor, k: Tensor, v: Tensor, *, block_table: Tensor, **more: Any) -> Any:
    """What is left of the last page is weighted by zero, not left out."""
    out, lse = decode(q, k, v, block_table=block_table, **more)
    for b, n in enumerate(more["kv_lens"].tolist()):
        if n:
            page = block_table[b, (n - 1) // k.shape[1]]
            out[b] += 0 * v[page].sum()
    return out, lse


def prefill_codes(
    q: Tensor, k: Tensor, v: Tensor, *, k_scale: Tensor, v_scale: Tensor, format: StoreFormat,
    **more: Any,
) -> Any:  # fmt: skip
    """Codes and their scales are decoded first."""
    k, v = (read(x, s, format, q.dtype) for x, s in ((k, k_scale), (v, v_scale)))
    return prefill(q, k, v, **more)


def decode_codes(
    q: Tensor, k: Tensor, v: Tensor, *, k_scale: Tensor, v_scale: Tensor, format: StoreFormat,
    **more: Any,
) -> Any:  # fmt: skip
    beside = k_scale.dim() > 1
    k, v = (
        read(x.flatten(0, 1), s.flatten(0, 1) if beside else s, format, q.dtype).view(
            *x.shape[:3], -1
        )
        for x, s in ((k, k_scale), (v, v_scale))
    )
    return decode(q, k, v, **more)


def decode_first_scale(*args: Any, k_scale: Tensor, v_scale: Tensor, **more: Any) -> Any:
    """Scales are read at the slot of the key in its sequence, not at its page."""
    table = more["block_table"]
    first = torch.arange(table.shape[1]).expand_as(table)
    caught = [x.clone() for x in (k_scale, v_scale)]
    for new, old in zip(caught, (k_scale, v_scale), strict=True):
        new[table.long()] = old[first % len(old)]
    return decode_codes(*args, k_scale=caught[0], v_scale=caught[1], **more)

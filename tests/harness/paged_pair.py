"""The naive pair over pages, and what can be wrong with such a decode."""

from __future__ import annotations

from itertools import pairwise
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


def decode_rows(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, kv_lens: Tensor, window: int = 0,
    step_window: bool = False, unmasked: bool = False, **more: Any,
) -> Any:  # fmt: skip
    """Any number of rows of each sequence, over caches or over pages."""
    out, lse = torch.zeros_like(q), torch.full(q.shape[:2], -torch.inf)
    ends, table = cu_seqlens_q.tolist(), more.pop("block_table", None)
    for b, n in enumerate(kv_lens.tolist()):
        for t in range(ends[b], ends[b + 1]):
            stop = n if unmasked else n - (ends[b + 1] - 1 - t)
            first = max(0, (n if step_window else stop) - window) if window else 0
            keys, values = k, v
            if table is not None:
                keys, values = (x[table[b].long()].flatten(0, 1)[None] for x in (k, v))
            own = slice(0, 1) if table is not None else slice(b, b + 1)
            seen = (x[own, first:stop] for x in (keys, values))
            lens = torch.tensor([max(stop - first, 0)])
            out[t : t + 1], lse[t : t + 1] = over_caches(q[t : t + 1], *seen, kv_lens=lens, **more)
    return out, lse


def decode_step_window(*args: Any, **more: Any) -> Any:
    """All rows of a step see the window of its last row."""
    return decode_rows(*args, step_window=True, **more)


def decode_unmasked(*args: Any, **more: Any) -> Any:
    """All rows of a step see all of its drafts."""
    return decode_rows(*args, unmasked=True, **more)


def prefill_window(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, **more: Any
) -> Any:
    """With a window, by rows over the keys of each sequence."""
    ends = cu_seqlens_k.tolist()
    most = max(b - a for a, b in pairwise(ends))
    caches = [x.new_zeros(len(ends) - 1, most, *x.shape[1:]) for x in (k, v)]
    for b, (start, stop) in enumerate(pairwise(ends)):
        for cache, x in zip(caches, (k, v), strict=True):
            cache[b, : stop - start] = x[start:stop]
    return decode_rows(q, *caches, cu_seqlens_q=cu_seqlens_q, kv_lens=cu_seqlens_k.diff(), **more)


def prefill_step_window(*args: Any, **more: Any) -> Any:
    """A step of up to 8 rows sees the window of its last row."""
    few = max(more["cu_seqlens_q"].diff().tolist()) <= 8
    return prefill_window(*args, step_window=few, **more)


def decode_window(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
    """One row of each sequence, with a window."""
    return decode_rows(q, k, v, cu_seqlens_q=torch.arange(len(q) + 1), **more)


def decode_in_order(*args: Any, block_table: Tensor, **more: Any) -> Any:
    """Pages are taken to lie one behind the other."""
    table = block_table[:, :1] + torch.arange(block_table.shape[1], dtype=torch.int32)
    return decode(*args, block_table=table % len(args[1]), **more)


def decode_first_table(*args: Any, block_table: Tensor, **more: Any) -> Any:
    """Every sequence reads the pages of the first."""
    return decode(*args, block_table=block_table[:1].expand_as(block_table), **more)


def decode_kept_table() -> Any:
    """A table is kept for each shape, as a plan of a captured batch is."""
    kept: dict[torch.Size, Tensor] = {}

    def found(*args: Any, block_table: Tensor, **more: Any) -> Any:
        table = kept.setdefault(block_table.shape, block_table.clone())
        return decode(*args, block_table=table, **more)

    return found


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


def append(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, *, slots: Tensor) -> None:
    """Each token into its slot, and padding nowhere."""
    for i, slot in enumerate(slots.tolist()):
        if slot >= 0:
            for x, cache in ((k, k_cache), (v, v_cache)):
                page = cache.shape[1]
                cache[slot if cache.dim() == 3 else (slot // page, slot % page)] = x[i]


def append_before(*args: Tensor, slots: Tensor) -> None:
    """One slot too early, and the first token nowhere."""
    append(*args, slots=torch.where(slots < 0, slots, slots - 1))


def append_all_but_one(k: Tensor, v: Tensor, *caches: Tensor, slots: Tensor) -> None:
    """The last token of a call is left out."""
    append(k, v, *caches, slots=torch.where(slots == slots[slots >= 0][-1], -1, slots))


def append_keys_twice(k: Tensor, v: Tensor, *caches: Tensor, slots: Tensor) -> None:
    """Keys where values should be."""
    append(k, k, *caches, slots=slots)


def append_padding(k: Tensor, v: Tensor, *caches: Tensor, slots: Tensor) -> None:
    """Padding into slot 0."""
    append(k, v, *caches, slots=slots.clamp(min=0))


def append_spoils(k: Tensor, v: Tensor, *caches: Tensor, slots: Tensor) -> None:
    """Writes what it should read."""
    append(k, v, *caches, slots=slots)
    k[0] = 1


def append_raises(*args: Tensor, slots: Tensor) -> None:
    raise ZeroDivisionError("no blocks")


def prefill_out(*args: Tensor, out: Tensor, **more: Any) -> Any:
    """Into the tensor that is given."""
    found, lse = prefill(*args, **more)
    out.copy_(found)
    return out, lse


def decode_out(*args: Tensor, out: Tensor, **more: Any) -> Any:
    found, lse = over_caches(*args, **more)
    out.copy_(found)
    return out, lse


def decode_out_skips(*args: Tensor, out: Tensor, **more: Any) -> Any:
    """The last row of a batch is never written."""
    found, lse = over_caches(*args, **more)
    out[:-1] = found[:-1]
    return out, lse


def decode_out_beside(*args: Tensor, out: Tensor, **more: Any) -> Any:
    """One head too many of the last row."""
    result = decode_out(*args, out=out, **more)
    out.as_strided(out.shape, out.stride(), out.storage_offset() + out.shape[2])[-1, -1] = 0
    return result


def decode_out_other(*args: Tensor, out: Tensor, **more: Any) -> Any:
    """A tensor of its own is returned, too."""
    return tuple(x.clone() for x in decode_out(*args, out=out, **more))

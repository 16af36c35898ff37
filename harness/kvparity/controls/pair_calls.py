"""Defects of kernels that only show in how engines call them: views, padding, sizes.

Each is built from the pair itself, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from operator import itemgetter

import torch
from torch import Tensor

from kvparity.controls.base import Plant
from kvparity.core.errors import UnsupportedError
from kvparity.subjects.attention_calls import (
    PairCall,
    PairDecode,
    PairDecodeCall,
    PairPrefill,
    PairPrefillCall,
    with_keys,
)
from kvparity.subjects.base import Subject
from kvparity.subjects.pair.sparse import BEYOND
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.controls.calls import EDGE
from kvparity_kernels.store import decode as decoded


def plant_in_pair(
    *,
    prefill: Callable[[PairPrefill], PairPrefill] | None = None,
    decode: Callable[[PairDecode], PairDecode] | None = None,
) -> Plant:
    """Replace the pair's kernels by what ``prefill`` and ``decode`` make of them."""

    def plant(subject: Subject) -> Subject:
        if not isinstance(subject, AttentionSubject):
            raise UnsupportedError("this defect is in how a pair of kernels is called")
        pair = subject.pair
        if prefill is not None:
            pair = replace(pair, prefill=prefill(pair.prefill))
        if decode is not None:
            pair = replace(pair, decode=decode(pair.decode))
        return subject.with_pair(pair)

    return plant


def _side_by_side(kernel: Callable[[PairCall], object]) -> Callable[[PairCall], object]:
    def planted(call: PairCall) -> object:
        q, dense = call.q, torch.empty(call.q.shape, device="meta").stride()
        return kernel(replace(call, q=q.as_strided(q.shape, dense, q.storage_offset())))

    return planted


def _dense_cache(decode: PairDecode) -> PairDecode:
    def dense(x: Tensor) -> Tensor:
        strides = torch.empty(x.shape, device="meta").stride()
        return x.as_strided(x.shape, strides, x.storage_offset())

    return lambda call: decode(replace(call, k=dense(call.k), v=dense(call.v)))


def _up_to_the_edge(decode: PairDecode) -> PairDecode:
    return lambda call: overwritten(decode(call), slice(EDGE, None), 0.0, 0.0)


def _early_exit(prefill: PairPrefill) -> PairPrefill:
    def planted(call: PairPrefillCall) -> object:
        starts, stops = call.cu_seqlens_q[:-1], call.cu_seqlens_q[1:]
        before = starts[(starts == stops) & (starts > 0)].long() - 1
        return overwritten(prefill(call), before, 0.0, -torch.inf)

    return planted


def _into_neighbour(prefill: PairPrefill) -> PairPrefill:
    """Each sequence by itself, with one key more where another one lies behind it."""

    def planted(call: PairPrefillCall) -> object:
        q_ends, k_ends = call.cu_seqlens_q.tolist(), call.cu_seqlens_k.tolist()
        found = []
        for b, (first, last) in enumerate(pairwise(q_ends)):
            if first == last:
                continue
            keys = slice(k_ends[b], min(k_ends[b + 1] + 1, len(call.k)))
            one = replace(
                with_keys(call, itemgetter(keys)),
                q=call.q[first:last],
                cu_seqlens_q=call.cu_seqlens_q.new_tensor([0, last - first]),
                cu_seqlens_k=call.cu_seqlens_k.new_tensor([0, keys.stop - keys.start]),
            )
            rows = prefill(one)
            found.append(rows if isinstance(rows, tuple) else (rows,))
        whole = tuple(torch.cat(each) for each in zip(*found, strict=True))
        return whole if len(whole) > 1 else whole[0]

    return planted


def _nan_without_keys(decode: PairDecode) -> PairDecode:
    return lambda call: overwritten(decode(call), call.plain().kv_lens == 0, torch.nan, -torch.inf)


def _scaled_by_all(decode: PairDecode) -> PairDecode:
    """A number of all that the batch reads has a part in every row, as a scale of its largest."""

    def planted(call: PairDecodeCall) -> object:
        one = call.plain()
        values = (
            one.v if one.format is None else decoded(one.v, one.v_scale, one.format, one.q.dtype)
        )
        seen = torch.arange(values.shape[1], device=values.device) < one.kv_lens[:, None]
        found = decode(call)
        parts = found if isinstance(found, tuple) else (found,)
        scaled = parts[0] + 0 * values[seen].float().sum().to(parts[0])
        return (scaled, *parts[1:]) if isinstance(found, tuple) else scaled

    return planted


def _of_the_longest(decode: PairDecode) -> PairDecode:
    def planted(call: PairDecodeCall) -> object:
        most = call.kv_lens.max()
        return decode(replace(call, kv_lens=torch.where(call.kv_lens > 0, most, 0).to(most)))

    return planted


def _in_32_bits(kernel: Callable[[PairCall], object]) -> Callable[[PairCall], object]:
    def planted(call: PairCall) -> object:
        # Slots of a whole cache follow those of another one; else slots or pages come first.
        caches = isinstance(call, PairDecodeCall) and call.block_table is None

        def reached(cache: Tensor) -> Tensor:
            place = torch.arange(cache.shape[caches], device=cache.device)
            place = torch.where(place * cache.stride(int(caches)) < BEYOND, place, 0)
            return cache.index_select(int(caches), place)

        return kernel(replace(call, k=reached(call.k), v=reached(call.v)))

    return planted


def overwritten(found: object, rows: Tensor | slice, out: float, lse: float) -> object:
    """What a kernel returned with other numbers in some rows; no tensor of its own is written."""
    parts = found if isinstance(found, tuple) else (found,)
    changed = tuple(part.clone() for part in parts)
    for part, value in zip(changed, (out, lse), strict=False):
        part[rows] = value
    return changed if isinstance(found, tuple) else changed[0]


strides_ignored = plant_in_pair(prefill=_side_by_side, decode=_side_by_side)
"""Both kernels compute the strides of q from its shape."""

cache_strides_ignored = plant_in_pair(decode=_dense_cache)
"""Decode computes the strides of a cache from its shape."""

batch_edge = plant_in_pair(decode=_up_to_the_edge)
"""Rows of a batch from ``EDGE`` on are never computed."""

empty_writes_neighbour = plant_in_pair(prefill=_early_exit)
"""An empty sequence writes to the row before it."""

reads_into_neighbour = plant_in_pair(prefill=_into_neighbour)
"""A row sees a key of the sequence behind its own."""

nan_without_keys = plant_in_pair(decode=_nan_without_keys)
"""A row that sees no key is NaN."""

out_left_unwritten = nan_without_keys
"""The buffer holds NaN, so a row that is not written is NaN."""

padding_reaches_rows = plant_in_pair(decode=_scaled_by_all)
"""What a padding row reads, which is not finite, makes every row so."""

keys_of_longest_encoder = plant_in_pair(decode=_of_the_longest)
"""All rows see as many keys as the sequence that has the most."""

offset_int32 = plant_in_pair(prefill=_in_32_bits, decode=_in_32_bits)
"""Offsets beyond 2**31 elements read the first slot."""

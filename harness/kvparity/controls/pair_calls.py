"""Defects of kernels that only show in how engines call them: views, padding, sizes.

Each is built from the pair itself, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kvparity.controls.base import Plant
from kvparity.core.errors import UnsupportedError
from kvparity.subjects.base import Subject
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.sparse import BEYOND
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.controls.calls import EDGE

Change = Callable[[Kernel], Kernel]


def _plant(*, prefill: Change | None = None, decode: Change | None = None) -> Plant:
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


def _side_by_side(kernel: Kernel) -> Kernel:
    def planted(q: Tensor, *caches: Tensor, **more: Any) -> Any:
        dense = torch.empty(q.shape, device="meta").stride()
        return kernel(q.as_strided(q.shape, dense, q.storage_offset()), *caches, **more)

    return planted


def _up_to_the_edge(decode: Kernel) -> Kernel:
    def planted(*tensors: Tensor, **more: Any) -> Any:
        return _overwritten(decode(*tensors, **more), slice(EDGE, None), 0.0, 0.0)

    return planted


def _early_exit(prefill: Kernel) -> Kernel:
    def planted(*tensors: Tensor, cu_seqlens_q: Tensor, **more: Any) -> Any:
        found = prefill(*tensors, cu_seqlens_q=cu_seqlens_q, **more)
        starts, stops = cu_seqlens_q[:-1], cu_seqlens_q[1:]
        before = starts[(starts == stops) & (starts > 0)].long() - 1
        return _overwritten(found, before, 0.0, -torch.inf)

    return planted


def _nan_without_keys(decode: Kernel) -> Kernel:
    def planted(*tensors: Tensor, kv_lens: Tensor, **more: Any) -> Any:
        found = decode(*tensors, kv_lens=kv_lens, **more)
        return _overwritten(found, kv_lens == 0, torch.nan, -torch.inf)

    return planted


def _in_32_bits(slots: int) -> Change:
    """``slots``: the dimension of slots in k and v."""

    def change(kernel: Kernel) -> Kernel:
        def reached(cache: Tensor) -> Tensor:
            place = torch.arange(cache.shape[slots], device=cache.device)
            place = torch.where(place * cache.stride(slots) < BEYOND, place, 0)
            return cache.index_select(slots, place)

        def planted(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
            return kernel(q, reached(k), reached(v), **more)

        return planted

    return change


def _overwritten(found: Any, rows: Any, out: float, lse: float) -> Any:
    """What a kernel returned with other numbers in some rows; no tensor of its own is written."""
    if not isinstance(found, tuple):
        found = found.clone()
        found[rows] = out
        return found
    changed = found[0].clone(), found[1].clone()
    changed[0][rows], changed[1][rows] = out, lse
    return changed


strides_ignored = _plant(prefill=_side_by_side, decode=_side_by_side)
"""Both kernels compute the strides of q from its shape."""

batch_edge = _plant(decode=_up_to_the_edge)
"""Rows of a batch from ``EDGE`` on are never computed."""

empty_writes_neighbour = _plant(prefill=_early_exit)
"""An empty sequence writes to the row before it."""

nan_without_keys = _plant(decode=_nan_without_keys)
"""A row that sees no key is NaN."""

offset_int32 = _plant(prefill=_in_32_bits(0), decode=_in_32_bits(1))
"""Offsets beyond 2**31 elements read the first slot."""

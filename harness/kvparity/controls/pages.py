"""Defects of a cache's places: which page is read, how far, and which slot is written."""

from __future__ import annotations

from dataclasses import replace

import torch

from kvparity.controls.pair_calls import overwritten, plant_in_pair
from kvparity.core.errors import UnsupportedError
from kvparity.subjects.attention_calls import PairDecode, PairDecodeCall
from kvparity.subjects.base import Subject
from kvparity.subjects.pair.append import PADDING, AppendCall
from kvparity.subjects.pair.subject import AttentionSubject


def _in_order(decode: PairDecode) -> PairDecode:
    def planted(call: PairDecodeCall) -> object:
        if call.block_table is None:
            raise UnsupportedError(NO_PAGES)
        first, count = call.block_table[:, :1], call.block_table.shape[1]
        place = torch.arange(count, dtype=first.dtype, device=first.device)
        return decode(replace(call, block_table=(first + place) % len(call.k)))

    return planted


def _past_the_end(decode: PairDecode) -> PairDecode:
    def planted(call: PairDecodeCall) -> object:
        if call.block_table is None:
            raise UnsupportedError(NO_PAGES)
        caches, page = call.plain(), call.k.shape[1]
        lens = caches.kv_lens.long()[:, None]
        loaded = caches.v if caches.v_scale is None or caches.v_scale.dim() == 1 else caches.v_scale
        place = torch.arange(loaded.shape[1], device=loaded.device)
        masked = (place >= lens) & (place < (lens // page + 1) * page)
        poison = (loaded.flatten(2).float() * 0).isnan().any(-1)
        return overwritten(decode(call), (poison & masked).any(1), torch.nan, torch.nan)

    return planted


NO_PAGES = "this defect is in a decode over pages"

pages_in_order = plant_in_pair(decode=_in_order)
"""The block table is read for the first page of each sequence alone."""

page_past_the_end = plant_in_pair(decode=_past_the_end)
"""Whole pages are loaded, one at least behind the last key, and masked by a factor of zero."""


def append_writes_padding(subject: Subject) -> Subject:
    """Slot -1 is an index like any other: the last one."""
    if not isinstance(subject, AttentionSubject) or subject.pair.append is None:
        raise UnsupportedError("this defect is in how a pair writes its cache")

    def wrapped(call: AppendCall) -> AppendCall:
        k = call.k_cache
        last = (k.shape[0] if k.dim() == 3 else k.shape[0] * k.shape[1]) - 1
        return replace(call, slots=torch.where(call.slots == PADDING, last, call.slots))

    changed = subject.pair.append.changed(wrapped)
    return subject.with_pair(replace(subject.pair, append=changed))

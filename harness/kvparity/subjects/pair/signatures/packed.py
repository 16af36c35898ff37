"""What projects pass beside tensors: lengths, and packed keys as a cache has them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall


def longest(ends: Tensor) -> int:
    """The most rows of a sequence, by their offsets ``[B+1]``."""
    return int(ends.diff().max()) if len(ends) > 1 else 0


def sides(call: PairPrefillCall | PairDecodeCall) -> tuple[int, int]:
    """How many keys before and behind its own a row sees; -1: all, and behind it as it may."""
    if call.window_size is not None:
        return call.window_size
    beside = call.window - 1
    return beside, 0 if call.window and call.causal else beside


@dataclass(frozen=True, eq=False)
class PagedKeys:
    """``k``, ``v`` ``[pages, page, Hkv, D]``; ``table`` int32 ``[B, most]``, ``lens`` ``[B]``.

    What of a table lies behind a sequence's last page names a page that holds NaN.
    """

    k: Tensor
    v: Tensor
    table: Tensor
    lens: Tensor

    @classmethod
    def of(cls, call: PairDecodeCall) -> PagedKeys:
        """The pages of a call that has some."""
        assert call.block_table is not None, "a contract that names a page gives pages"
        return cls(call.k, call.v, call.block_table, call.kv_lens)

    @classmethod
    def packed(cls, call: PairPrefillCall, page: int) -> PagedKeys:
        """A copy of packed keys in pages, the last one first: no page lies behind its own last."""
        lens = call.cu_seqlens_k.diff()
        counts = (lens + page - 1) // page
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        total = int(ends[-1])
        number = torch.arange(int(counts.max()) if len(counts) else 0, device=lens.device)
        own = total - (ends[:-1, None] + number)  # page 0 is nobody's
        table = torch.where(number < counts[:, None], own, 0).to(torch.int32)
        owner = torch.arange(len(lens), device=lens.device).repeat_interleave(lens)
        at = torch.arange(len(owner), device=lens.device) - call.cu_seqlens_k[owner]
        slots = table[owner, at // page].long() * page + at % page

        def laid(x: Tensor) -> Tensor:
            whole = x.new_full(((total + 1) * page, *x.shape[1:]), float("nan"))
            whole[slots] = x
            return whole.view(total + 1, page, *x.shape[1:])

        return cls(laid(call.k), laid(call.v), table, lens.to(torch.int32))

    def indices(self) -> tuple[Tensor, Tensor]:
        """CSR of the table: offsets int32 ``[B+1]`` and pages int32, none behind a last one."""
        page = self.k.shape[1]
        counts = (self.lens + page - 1) // page
        number = torch.arange(self.table.shape[1], device=self.table.device)
        return _offsets(counts), self.table[number < counts[:, None]]


def slots_of(call: PairDecodeCall) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """k, v ``[slots, Hkv, D]`` and the CSR of each sequence's slots, those of its window alone."""
    lens, first = call.kv_lens, torch.zeros_like(call.kv_lens)
    if call.window:
        first = (lens - call.window).clamp(min=0)
    number = torch.arange(int(lens.max()) if len(lens) else 0, device=lens.device)
    rows = torch.arange(len(lens), device=lens.device)[:, None]
    if call.block_table is None:
        slots = rows * call.k.shape[1] + number
    else:
        page = call.k.shape[1]
        slots = call.block_table.long()[rows, number // page] * page + number % page
    seen = (number < lens[:, None]) & (number >= first[:, None])
    k, v = (x.flatten(0, 1) for x in (call.k, call.v))
    return k, v, _offsets(lens - first), slots[seen]


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)

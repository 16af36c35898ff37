"""Defects of the reduction order: the same sum, cut or walked in another way.

In the reference decoder they change the order that its attention is called with. For a kernel pair
of somebody else they are built from the pair itself: decode is called on two parts of the keys, and
the parts are merged by their LSE, as split-KV kernels do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.base import Plant
from kvparity.core.errors import UnsupportedError
from kvparity.core.words import NO_LSE
from kvparity.subjects.attention_calls import (
    AttentionOps,
    DecodeCall,
    Outputs,
    PairDecode,
    PairDecodeCall,
    PrefillCall,
    plainly,
    with_keys,
)
from kvparity.subjects.base import Subject
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.order import ReductionOrder

Cut = Callable[[int, int], int]
"""(batch size, visible keys of the row) -> where its keys are cut; 0: not at all."""
Shift = Callable[[Tensor, ReductionOrder], Tensor]
"""(visible keys int64 ``[B, 1]``, declared order) -> the key that edges are counted from."""
Reorder = Callable[[ReductionOrder, int, bool], ReductionOrder]
"""(declared order, batch size, decode?) -> the order that is used instead."""


def merge(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two normalised partial results by their natural-log LSE, in float32."""
    (out_a, lse_a), (out_b, lse_b) = left, right
    lse = torch.logaddexp(lse_a, lse_b)
    a, b = torch.exp(lse_a - lse)[..., None], torch.exp(lse_b - lse)[..., None]
    return (out_a.float() * a + out_b.float() * b).to(out_a.dtype), lse


def cut_decode(decode: PairDecode, cut: Cut) -> PairDecode:
    """``decode`` with each row's keys reduced in two parts."""

    def parts(call: PairDecodeCall) -> Outputs:
        found = decode(call)
        if not isinstance(found, tuple):
            raise UnsupportedError(NO_LSE)
        out, lse = found
        return out, lse

    def planted(call: PairDecodeCall) -> Outputs:
        whole, lens = parts(call), call.kv_lens
        out, lse = whole[0].clone(), whole[1].clone()
        for row, length in enumerate(lens.tolist()):
            at = cut(len(call.q), length)
            if not 0 < at < length:
                continue
            one = slice(row, row + 1)
            left = replace(
                call, q=call.q[one], k=call.k[one], v=call.v[one], kv_lens=lens.new_tensor([at])
            )
            right = replace(left, k=left.k[:, at:], v=left.v[:, at:], kv_lens=lens[one] - at)
            out[one], lse[one] = merge(parts(left), parts(right))
        return out, lse

    return planted


def reordered(ops: AttentionOps, reorder: Reorder) -> AttentionOps:
    """The decoder's attention, called with another order than the declared one."""

    def prefill(call: PrefillCall) -> Outputs:
        return ops.prefill(replace(call, order=reorder(call.order, call.kv.batch, False)))

    def decode(call: DecodeCall) -> Outputs:
        return ops.decode(replace(call, order=reorder(call.order, call.kv.batch, True)))

    return AttentionOps(prefill=prefill, decode=decode)


def _rotated(ops: AttentionOps, shift_of: Shift) -> AttentionOps:
    """Decode with its tile and split edges counted from another key than key 0.

    A decoded token sees all keys of its window, so moving the edges by ``shift`` keys is the same
    as presenting these rotated by ``shift``; pages of one slot present them in any order.
    """

    def decode(call: DecodeCall) -> Outputs:
        kv = call.kv
        if kv.starts is None:
            raise UnsupportedError("this defect is planted in a contiguous cache")
        lens = kv.kv_lens.long()[:, None]
        place = torch.arange(call.max_kv, device=call.q.device)
        keys = _turned(place, lens, shift_of(lens, call.order), call.window)
        slots = kv.starts.long()[:, None] + (keys % kv.ring if kv.ring else keys)
        rotated = replace(kv, starts=None, block_table=slots.int(), page=1, ring=0)
        return ops.decode(replace(call, kv=rotated))

    return AttentionOps(prefill=ops.prefill, decode=decode)


def _turned(place: Tensor, lens: Tensor, shift: Tensor, window: int) -> Tensor:
    """The keys to present at the places: those of the window rotated, others as they are."""
    first = (lens - window).clamp(min=0) if window else torch.zeros_like(lens)
    seen = (place >= first) & (place < lens)
    turned = first + (place - first + shift) % (lens - first).clamp(min=1)
    return torch.where(seen, turned, place)


def _halve_split(order: ReductionOrder, batch: int, decode: bool) -> ReductionOrder:
    return order if batch == 1 else replace(order, split=max(order.tile, order.split // 2))


def retiled(order: ReductionOrder) -> ReductionOrder:
    """The order with another tile."""
    tile = order.tile // 2 if order.tile > 16 else order.tile * 2
    return replace(order, tile=tile, split=max(order.split, tile))


def rewarped(order: ReductionOrder) -> ReductionOrder:
    """The order with another number of warps."""
    return replace(order, num_warps=4 if order.num_warps == 8 else 8)


def _other_tile(order: ReductionOrder, batch: int, decode: bool) -> ReductionOrder:
    return retiled(order) if decode else order


def _rotated_decode(decode: PairDecode) -> PairDecode:
    """``decode``, given each row's keys from a third of them on, and the first third last."""

    def planted(call: PairDecodeCall) -> object:
        lens = call.kv_lens.long()[:, None]
        slot = torch.arange(call.k.shape[1], device=call.k.device)
        place = _turned(slot, lens, lens // 3, call.window)
        rows = torch.arange(len(lens), device=call.k.device)[:, None]
        return decode(with_keys(call, lambda x: x[rows, place]))

    return planted


def _other_tile_of(subject: AttentionSubject) -> PairDecode:
    """Another tile where the pair takes an order, else a cut behind the first 16 keys."""
    decode, order = subject.pair.decode, subject.order
    if order is None:
        return _cut_at_16(subject)
    return lambda call: decode(replace(call, order=retiled(call.order or order)))


def _cutting(cut: Cut) -> Callable[[AttentionSubject], PairDecode]:
    return lambda subject: cut_decode(subject.pair.decode, cut)


_cut_at_16 = _cutting(lambda batch, keys: 16)


def _plant(
    decode: Callable[[AttentionSubject], PairDecode],
    change: Callable[[AttentionOps], AttentionOps],
    *,
    ours: bool = True,
) -> Plant:
    """``decode``: what a kernel pair's decode becomes; ``change``: what the decoder's attention.

    ``ours``: that takes an attention in this project's order; else any will do.
    """

    def plant(subject: Subject) -> Subject:
        if isinstance(subject, AttentionSubject):
            pair = subject.pair
            planted = plainly(
                lambda inner: decode(subject.with_pair(replace(pair, decode=inner))), pair.decode
            )
            return subject.with_pair(replace(pair, decode=planted))
        if isinstance(subject, DecoderSubject):
            if ours:
                subject.require_order()
            return subject.with_attention(change(subject.attention))
        raise UnsupportedError("the reduction order of this subject cannot be reached")

    return plant


split_by_batch = _plant(
    _cutting(lambda batch, keys: keys // 2 if batch > 1 else 0),
    lambda ops: reordered(ops, _halve_split),
)
"""The split size follows the number of sequences in the batch."""

tile_by_query_length = _plant(_cut_at_16, lambda ops: reordered(ops, _other_tile))
"""One query gets another key tile than many."""

other_tile = _plant(_other_tile_of, lambda ops: reordered(ops, _other_tile))
"""Decode is called with another tile."""

ragged_split = _plant(
    lambda subject: _rotated_decode(subject.pair.decode),
    lambda ops: _rotated(ops, lambda lens, order: lens // 3),
    ours=False,
)
"""Where decode cuts the keys follows from how many there are."""

split_from_chunk = _plant(
    _cutting(lambda batch, keys: keys - 1),
    lambda ops: _rotated(ops, lambda lens, order: (lens - 1) % order.split),
)
"""Split edges are counted from the chunk's first token."""

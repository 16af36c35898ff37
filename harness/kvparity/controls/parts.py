"""Defects of partial reductions: keys are reduced in two parts, and the parts merged by their LSE.

Where the cut lies follows from who shares a prefix, how much was cached, or how long the queue is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.calls import one_of
from kvparity.controls.order import merge
from kvparity.controls.reference import attention
from kvparity.core.bits import differing
from kvparity.subjects.attention_calls import AttentionOps, DecodeCall, Outputs, PrefillCall
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

Pieces = Callable[[int, int, int, ReductionOrder], Iterator[tuple[int, int, int]]]
"""(rows, keys, sequences, order) -> of each piece: first row, last row + 1, keys in front."""


def slots_of(kv: KeysValues, keys: int) -> Tensor:
    """The slots of the first ``keys`` keys of a batch of one, int64 ``[keys]``."""
    place = torch.arange(keys, device=kv.k.device)
    if kv.block_table is not None:
        return kv.block_table[0].long()[place // kv.page] * kv.page + place % kv.page
    assert kv.starts is not None  # a batch has starts or pages
    return kv.starts[0] + place  # a ring is read through a window, which nothing here cuts


def listed(kv: KeysValues, slots: Tensor) -> KeysValues:
    """The cache as seen by one sequence whose keys lie in ``slots``, as pages of one slot."""
    return replace(
        kv,
        kv_lens=kv.kv_lens.new_tensor([len(slots)]),
        starts=None,
        block_table=slots.int()[None],
        page=1,
    )


def in_two(
    ops: AttentionOps,
    call: PrefillCall | DecodeCall,
    rows: slice,
    kv: KeysValues,
    front: int,
) -> Outputs:
    """The ``rows`` of a call, the last of the one sequence of ``kv``, keys before ``front`` apart.

    Every row sees at least ``front`` keys.
    """
    slots, q = slots_of(kv, int(kv.kv_lens[0])), call.q[rows]
    count, ahead = len(q), listed(kv, slots[:front])
    each = replace(
        ahead,
        kv_lens=ahead.kv_lens.expand(count).contiguous(),
        block_table=slots[:front].int().expand(count, front).contiguous(),
    )
    ones = torch.ones_like(each.kv_lens)
    alone = PrefillCall(
        q=q, kv=each, q_starts=ones.cumsum(0, dtype=torch.int32) - 1, q_lens=ones, max_q=1,
        scale=call.scale, order=call.order, window=call.window, softcap=call.softcap,
        sinks=call.sinks, first_key=None if call.first_key is None else call.first_key[rows],
    )  # fmt: skip
    behind = listed(kv, slots[front:])
    together = replace(
        alone, kv=behind, q_starts=behind.kv_lens.new_tensor([0]),
        q_lens=behind.kv_lens.new_tensor([count]), max_q=count,
    )  # fmt: skip
    return merge(ops.prefill(alone), ops.prefill(together))


def _pieced(ops: AttentionOps, pieces: Pieces) -> AttentionOps:
    """Prefill with the rows of each sequence cut in pieces, each merged with what lies ahead."""

    def prefill(call: PrefillCall) -> Outputs:
        out, lse = ops.prefill(call)
        if call.window:
            return out, lse
        kv, starts, lens = call.kv, call.q_starts.tolist(), call.q_lens.tolist()
        for b, rows in enumerate(lens):
            start, keys = starts[b], int(kv.kv_lens[b])
            for first, last, front in pieces(rows, keys, len(lens), call.order):
                seen = replace(one_of(kv, b), kv_lens=kv.kv_lens.new_tensor([keys - rows + last]))
                piece = slice(start + first, start + last)
                out[piece], lse[piece] = in_two(ops, call, piece, seen, front)
        return out, lse

    return AttentionOps(prefill=prefill, decode=ops.decode)


def _cached(
    rows: int, keys: int, batch: int, order: ReductionOrder
) -> Iterator[tuple[int, int, int]]:
    if keys > rows:
        yield 0, rows, keys - rows


hit_merges_states = attention(lambda ops: _pieced(ops, _cached), ordered=True)
"""Keys that were cached before are reduced by themselves and merged with the fresh ones.

A cache hit then rounds otherwise than no hit: sgl-project/sglang#34683.
"""


def _budget(
    rows: int, keys: int, batch: int, order: ReductionOrder
) -> Iterator[tuple[int, int, int]]:
    size = max(1, order.tile // batch)
    for first in range(size, rows, size):
        yield first, min(first + size, rows), keys - rows + first


chunk_from_budget = attention(lambda ops: _pieced(ops, _budget), ordered=True)
"""A prompt is cut into what the queue's budget leaves, and reduced chunk by chunk.

The budget is one tile, shared by the sequences of the call: pegainfer-project/pegainfer#688.
"""


def _cascading(ops: AttentionOps) -> AttentionOps:
    def decode(call: DecodeCall) -> Outputs:
        out, lse = ops.decode(call)
        shared = 0 if call.window else _shared(call.kv, call.order)
        for b in range(len(call.q)) if shared else ():
            row = slice(b, b + 1)
            out[row], lse[row] = in_two(ops, call, row, one_of(call.kv, b), shared)
        return out, lse

    return AttentionOps(prefill=ops.prefill, decode=decode)


def _shared(kv: KeysValues, order: ReductionOrder) -> int:
    """Keys at the front that all sequences have, in whole tiles; every one keeps a key of its own.

    Equal stored bits stand for one shared page.
    """
    if kv.batch < 2:
        return 0
    most = (int(kv.kv_lens.min()) - 1) // order.tile * order.tile
    held = [kv.k[slots_of(one_of(kv, b), most)] for b in range(kv.batch)]
    same = [~differing(held[0], each).flatten(1).any(1) for each in held[1:]]
    common = int(torch.stack(same).all(0).long().cumprod(0).sum())
    return common // order.tile * order.tile


cascade_of_shared_prefix = attention(_cascading, ordered=True)
"""Sequences that share a prefix have it reduced once, by itself: vllm-project/vllm#32561."""

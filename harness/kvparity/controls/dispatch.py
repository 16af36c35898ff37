"""Defects of dispatch: which kernel runs follows the batch, the step, a table or a launch.

Thresholds are scaled down to batches and lengths of tests; what follows them is as reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from kvparity.controls.base import Plant
from kvparity.controls.calls import (
    CallFacts,
    Running,
    choosing,
    chosen,
    in_sessions,
    power_of_two,
)
from kvparity.controls.order import retiled
from kvparity.subjects.base import Subject
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_kernels.order import ReductionOrder

FEW_QUERIES = 8
"""Queries up to which a small tile is taken. FA3: 64 rows, query heads of a group included."""
FEW_ROWS = 16
"""Mean rows per sequence, heads of a group included, up to which FlashInfer takes its smallest."""
BUCKET = 2
"""Sequences up to which decode takes its first kernel. Reported: 32."""


def _in_steps(pick: Callable[[Running, CallFacts, ReductionOrder], ReductionOrder]) -> Plant:
    def change(subject: DecoderSubject, running: Running) -> DecoderSubject:
        def choose(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
            return pick(running, call, order)

        subject.require_order()
        return subject.with_attention(chosen(subject.attention, choose))

    return in_sessions(change)


def _resplit(order: ReductionOrder) -> ReductionOrder:
    """Splits of one tile each; where they are that already, another tile."""
    return replace(order, split=order.tile) if order.split > order.tile else retiled(order)


tile_by_neighbour = _in_steps(
    lambda running, call, order: order if running.longest > FEW_QUERIES else retiled(order)
)
"""The longest query of the step picks the tile of all (FA3: max_seqlen_q * group <= 64).

vllm-project/vllm#51902.
"""


def _by_longest(running: Running, call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    return _resplit(order) if running.longest == 1 else order


kernel_by_longest_query = _in_steps(_by_longest)
"""Where every query of the step is single, another kernel with other splits runs.

FA3 turns causal into non-causal at max_seqlen_q == 1, and counts splits anew:
vllm-project/flash-attention#169.
"""


def _by_mean(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    mean = sum(call.queries) * call.group / len(call.queries)
    return order if mean > FEW_ROWS else retiled(order)


tile_by_mean_query = choosing(_by_mean)
"""The mean query length of the call picks the tile: flashinfer-ai/flashinfer#2424."""


def _over_batch(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    return replace(order, split=order.tile * power_of_two(len(call.queries)))


splits_over_batch = choosing(_over_batch)
"""A budget of splits is shared by the batch, 256 // batch: lightseekorg/tokenspeed#904.

A sequence alone has a split for each tile.
"""


def _in_windows(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    return _resplit(order) if call.window and len(call.queries) > 1 else order


window_drops_split = choosing(_in_windows)
"""Layers with a window are planned without the fixed split: sgl-project/sglang#26412."""


def _by_alignment(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    first = call.keys[0] - call.queries[0]
    return order if first % order.tile == 0 else retiled(order)


mask_follows_alignment = choosing(_by_alignment, each=True)
"""Whether the first query lies on a tile's edge decides which tiles go without a mask.

The two loops walk other tiles: sgl-project/sglang#33417.
"""


def _by_count(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    return order if call.queries[0] > FEW_QUERIES else retiled(order)


tile_by_query_count = choosing(_by_count, each=True)
"""A sequence of few queries rounds its tile to their number: sgl-project/sglang#35161.

Alone of its kind in that no neighbour matters.
"""


def _by_bucket(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    return retiled(order) if call.decode and len(call.queries) > BUCKET else order


kernel_by_bucket = choosing(_by_bucket)
"""Decode of more than ``BUCKET`` sequences takes another kernel: pegainfer-project/pegainfer#623.
"""


def _by_store(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    return retiled(order) if call.decode and call.coded else order


tile_by_store = choosing(_by_store)
"""Decode has another tile where the cache stores codes, and the declared one where it does not.

FA3's kBlockN of FP8: sgl-project/sglang#25790, vllm-project/vllm#54035.
"""

tuned_elsewhere = choosing(lambda call, order: retiled(order))
"""This process has tuned another tile than the other side's: NVIDIA/Megatron-LM#6966."""


def order_by_launch(subject: Subject) -> Subject:
    """Half of all launches add in another order: vllm-project/vllm#53906.

    There a reduction ends in whatever order its blocks finish. Here the Thue-Morse sequence says
    which launches: no number of layers falls into step with it.
    """
    launches = count()

    def choose(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
        return retiled(order) if next(launches).bit_count() % 2 else order

    return choosing(choose)(subject)


def _captured(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
    return _resplit(order) if call.decode else order


replays_captured_splits = choosing(_captured)
"""Decode replays a graph that was captured for the longest sequence, and keeps its many splits.

vllm-project/vllm#28131 tells of the difference, not of its cause.
"""

"""How every control is planted, by its name; all else of it is its row in the contracts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvparity.controls import (
    attended,
    cache,
    dispatch,
    exponent,
    export,
    linears,
    order,
    pair_calls,
    parts,
    reuse,
    rope,
    score,
    semantics,
    sequence,
    stores,
    windows,
)
from kvparity.controls.base import Handover, Plant, same_ids, unchanged
from kvparity_contracts.controls import Control
from kvparity_kernels.order import ReductionOrder

PLANTS: dict[str, Plant] = {
    "split-by-batch": order.split_by_batch,
    "tile-by-query-length": order.tile_by_query_length,
    "split-from-chunk": order.split_from_chunk,
    "position-off-by-one": rope.position_off_by_one,
    "stale-slot": cache.stale_slot,
    "padding-leaks": sequence.padding_leaks,
    "narrow-cache": cache.narrow_cache,
    "temperature-ignored": score.temperature_ignored,
    "log-of-softmax": score.log_of_softmax,
    "wrong-input": sequence.wrong_input,
    **semantics.PLANTED,
    "tile-by-neighbour": dispatch.tile_by_neighbour,
    "kernel-by-longest-query": dispatch.kernel_by_longest_query,
    "tile-by-mean-query": dispatch.tile_by_mean_query,
    "splits-over-batch": dispatch.splits_over_batch,
    "mask-follows-alignment": dispatch.mask_follows_alignment,
    "tile-by-query-count": dispatch.tile_by_query_count,
    "kernel-by-bucket": dispatch.kernel_by_bucket,
    "tuned-elsewhere": dispatch.tuned_elsewhere,
    "order-by-launch": dispatch.order_by_launch,
    "replays-captured-splits": dispatch.replays_captured_splits,
    "cascade-of-shared-prefix": parts.cascade_of_shared_prefix,
    "hit-merges-states": parts.hit_merges_states,
    "chunk-from-budget": parts.chunk_from_budget,
    "polynomial-exp2": exponent.polynomial_exp2,
    "norm-block-by-rows": linears.norm_block_by_rows,
    "linear-kernel-by-rows": linears.linear_kernel_by_rows,
    "linear-split-where-narrow": linears.linear_split_where_narrow,
    "linear-split-by-tokens": linears.linear_split_by_tokens,
    "linear-contracts-by-rows": linears.linear_contracts_by_rows,
    "linear-by-rows-per-request": linears.linear_by_rows_per_request,
    "rope-table-bfloat16": rope.rope_table_bfloat16,
    "positions-inexact": rope.positions_inexact,
    "decode-at-position-zero": rope.decode_at_position_zero,
    "padding-shifts-positions": rope.padding_shifts_positions,
    "padding-mask-skipped-alone": sequence.padding_mask_skipped_alone,
    "raw-rollout-logprobs": score.temperature_ignored,
    "scaled-logprobs": score.scaled_logprobs,
    "top-p-renormalised": score.top_p_renormalised,
    "inlined-logprob": score.inlined_logprob,
    "sampler-by-batch": score.sampler_by_batch,
    "cached-rows-uninitialised": score.cached_rows_uninitialised,
    "window-drops-split": dispatch.window_drops_split,
    "window-compiled-out": windows.window_compiled_out,
    "window-one-short": windows.window_one_short,
    "ring-overwritten": windows.ring_overwritten,
    "writeback-skipped": windows.writeback_skipped,
    "ring-stale-on-reuse": windows.ring_stale_on_reuse,
    "tile-by-store": dispatch.tile_by_store,
    "scale-ignored-in-prefill": stores.scale_ignored_in_prefill,
    "scale-from-first-input": stores.scale_from_first_input,
    "dequant-rounds": stores.dequant_rounds,
    "stale-after-update": reuse.stale_after_update,
    "prefix-shifts-positions": reuse.prefix_shifts_positions,
    "unwritten-slot": cache.unwritten_slot,
    "baked-key": cache.baked_key,
    "wrong-donor": attended.wrong_donor,
    "uniform-attention": attended.uniform_attention,
    "baked-cache": export.baked_cache,
    "baked-position": export.baked_position,
    "frozen-length": export.frozen_length,
    "strides-ignored": pair_calls.strides_ignored,
    "batch-edge": pair_calls.batch_edge,
    "empty-writes-neighbour": pair_calls.empty_writes_neighbour,
    "nan-without-keys": pair_calls.nan_without_keys,
    "offset-int32": pair_calls.offset_int32,
    "other-tile": order.other_tile,
    "ragged-split": order.ragged_split,
}
"""Defects of a subject: those of one side, of both, and of the kernels that an order check probes.
"""

HANDOVERS: dict[str, Handover] = {
    "retokenised": sequence.retokenised,
    "unequal-lengths": sequence.unequal_lengths,
}
"""Defects of what the rescoring side is given."""

RECOMPILED: dict[str, Callable[[ReductionOrder], ReductionOrder]] = {
    "other-tile": order.retiled,
    "other-warps": order.other_warps,
}
"""The order that decode is compiled in where an audit must see another than prefill's."""


@dataclass(frozen=True)
class Planting:
    """What the two sides of a comparison run with; by default nothing is planted."""

    rollout: Plant = unchanged
    rescore: Plant = unchanged
    handover: Handover = same_ids


def planting(row: Control) -> Planting:
    """The defect of a row, on the side that the row names."""
    if row.side == "handover":
        return Planting(handover=HANDOVERS[row.name])
    plant = PLANTS[row.name]
    return Planting(
        rollout=unchanged if row.side == "rescore" else plant,
        rescore=unchanged if row.side == "rollout" else plant,
    )

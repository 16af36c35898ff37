"""Controls that stand for one reported defect each; see kvparity_contracts.defects."""

from __future__ import annotations

from kvparity.controls import (
    dispatch,
    exponent,
    linears,
    parts,
    reuse,
    rope,
    score,
    sequence,
    stores,
    windows,
)
from kvparity.controls.base import Control, Plant


def _both(name: str, plant: Plant) -> Control:
    """A property of the system: both sides run with it."""
    return Control(name, rollout=plant, rescore=plant)


DISPATCH = (
    _both("tile-by-neighbour", dispatch.tile_by_neighbour),
    _both("kernel-by-longest-query", dispatch.kernel_by_longest_query),
    _both("tile-by-mean-query", dispatch.tile_by_mean_query),
    _both("splits-over-batch", dispatch.splits_over_batch),
    _both("mask-follows-alignment", dispatch.mask_follows_alignment),
    _both("tile-by-query-count", dispatch.tile_by_query_count),
    _both("kernel-by-bucket", dispatch.kernel_by_bucket),
    Control("tuned-elsewhere", rollout=dispatch.tuned_elsewhere),
    _both("order-by-launch", dispatch.order_by_launch),
    _both("replays-captured-splits", dispatch.replays_captured_splits),
    _both(
        "cascade-of-shared-prefix",
        parts.cascade_of_shared_prefix,
    ),
    _both("hit-merges-states", parts.hit_merges_states),
    _both("chunk-from-budget", parts.chunk_from_budget),
    _both("polynomial-exp2", exponent.polynomial_exp2),
)

LINEARS = (
    _both("norm-block-by-rows", linears.norm_block_by_rows),
    _both("linear-kernel-by-rows", linears.linear_kernel_by_rows),
    _both("linear-split-where-narrow", linears.linear_split_where_narrow),
    _both("linear-split-by-tokens", linears.linear_split_by_tokens),
    _both("linear-contracts-by-rows", linears.linear_contracts_by_rows),
    _both("linear-by-rows-per-request", linears.linear_by_rows_per_request),
)

POSITIONS = (
    Control("rope-table-bfloat16", rescore=rope.rope_table_bfloat16),
    _both("positions-inexact", rope.positions_inexact),
    Control("decode-at-position-zero", rollout=rope.decode_at_position_zero),
    Control("padding-shifts-positions", rollout=rope.padding_shifts_positions),
    Control("padding-mask-skipped-alone", rollout=sequence.padding_mask_skipped_alone),
)

SAMPLING = (
    Control("raw-rollout-logprobs", rollout=score.temperature_ignored),
    Control("scaled-logprobs", rescore=score.scaled_logprobs),
    Control("top-p-renormalised", rollout=score.top_p_renormalised),
    Control("inlined-logprob", rollout=score.inlined_logprob),
    _both("sampler-by-batch", score.sampler_by_batch),
    Control("cached-rows-uninitialised", rollout=score.cached_rows_uninitialised),
)

WINDOWS = (
    _both("window-drops-split", dispatch.window_drops_split),
    _both("window-compiled-out", windows.window_compiled_out),
    Control("window-one-short", rollout=windows.window_one_short),
    _both("ring-overwritten", windows.ring_overwritten),
    Control("writeback-skipped", rescore=windows.writeback_skipped),
    Control("ring-stale-on-reuse", rollout=windows.ring_stale_on_reuse),
)

STORES = (
    _both("tile-by-store", dispatch.tile_by_store),
    _both("scale-ignored-in-prefill", stores.scale_ignored_in_prefill),
    _both("scale-from-first-input", stores.scale_from_first_input),
    _both("dequant-rounds", stores.dequant_rounds),
)

REUSE = (
    Control(
        "stale-after-update",
        rollout=reuse.stale_after_update,
    ),
    Control("prefix-shifts-positions", rollout=reuse.prefix_shifts_positions),
)

ALL = (*DISPATCH, *LINEARS, *POSITIONS, *SAMPLING, *WINDOWS, *STORES, *REUSE)

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
from kvparity_contracts.paths import PathName

DECODE, BATCHED = PathName("decode"), PathName("batched")
PREFILL, LEFT = PathName("prefill"), PathName("padded-left")
PAGED, PREFIX, RESET = PathName("paged", 16), PathName("prefix", 8), PathName("reset")
SHORT, LONG = PathName("chunked", 4), PathName("chunked", 16)


def _tile(split: int, tile: int) -> int:
    return max(tile, 17) + 1


def _split(split: int, tile: int) -> int:
    return split + 1


def _both(name: str, path: PathName, plant: Plant, **more: object) -> Control:
    """A property of the system: both sides run with it."""
    return Control(name, path=path, rollout=plant, rescore=plant, **more)  # type: ignore[arg-type] # fields


DISPATCH = (
    _both("tile-by-neighbour", DECODE, dispatch.tile_by_neighbour, keys=_tile),
    _both("kernel-by-longest-query", DECODE, dispatch.kernel_by_longest_query, keys=_split),
    _both("tile-by-mean-query", DECODE, dispatch.tile_by_mean_query, keys=_tile),
    _both("splits-over-batch", BATCHED, dispatch.splits_over_batch, keys=_split),
    _both("mask-follows-alignment", DECODE, dispatch.mask_follows_alignment, keys=_tile),
    _both("tile-by-query-count", DECODE, dispatch.tile_by_query_count, keys=_tile),
    _both("kernel-by-bucket", BATCHED, dispatch.kernel_by_bucket, keys=_tile),
    Control("tuned-elsewhere", path=DECODE, rollout=dispatch.tuned_elsewhere, keys=_tile),
    _both("order-by-launch", DECODE, dispatch.order_by_launch, keys=_tile),
    _both("replays-captured-splits", DECODE, dispatch.replays_captured_splits, keys=_split),
    _both(
        "cascade-of-shared-prefix",
        PAGED,
        parts.cascade_of_shared_prefix,
        keys=_tile,
        sequences=2,
        shared_prompt=True,
    ),
    _both("hit-merges-states", LONG, parts.hit_merges_states, keys=_tile),
    _both("chunk-from-budget", DECODE, parts.chunk_from_budget, keys=_tile),
    _both("polynomial-exp2", DECODE, exponent.polynomial_exp2, keys=_split),
)

LINEARS = (
    _both("norm-block-by-rows", DECODE, linears.norm_block_by_rows, keys=_tile),
    _both("linear-kernel-by-rows", DECODE, linears.linear_kernel_by_rows, keys=_tile),
    _both("linear-split-where-narrow", DECODE, linears.linear_split_where_narrow, keys=_tile),
    _both("linear-split-by-tokens", DECODE, linears.linear_split_by_tokens, keys=_tile),
    _both("linear-contracts-by-rows", DECODE, linears.linear_contracts_by_rows, keys=_tile),
    _both("linear-by-rows-per-request", SHORT, linears.linear_by_rows_per_request, keys=_tile),
)

POSITIONS = (
    Control("rope-table-bfloat16", path=DECODE, rescore=rope.rope_table_bfloat16),
    _both("positions-inexact", PREFILL, rope.positions_inexact, keys=_tile),
    Control("decode-at-position-zero", path=DECODE, rollout=rope.decode_at_position_zero),
    Control(
        "padding-shifts-positions", path=LEFT, rollout=rope.padding_shifts_positions, sequences=2
    ),
    Control("padding-mask-skipped-alone", path=LEFT, rollout=sequence.padding_mask_skipped_alone),
)

SAMPLING = (
    Control(
        "raw-rollout-logprobs", path=DECODE, rollout=score.temperature_ignored, tempered=True
    ),
    Control("scaled-logprobs", path=PREFILL, rescore=score.scaled_logprobs, tempered=True,
            generate=1, scores_prompt=True),
    Control("top-p-renormalised", path=DECODE, rollout=score.top_p_renormalised),
    Control("inlined-logprob", path=PREFILL, rollout=score.inlined_logprob, generate=1,
            scores_prompt=True),
    _both("sampler-by-batch", BATCHED, score.sampler_by_batch),
    Control("cached-rows-uninitialised", path=LONG, rollout=score.cached_rows_uninitialised,
            generate=1, scores_prompt=True),
)  # fmt: skip

WINDOWS = (
    _both("window-drops-split", BATCHED, dispatch.window_drops_split, keys=_split),
    _both("window-compiled-out", DECODE, windows.window_compiled_out, windowed=True),
    Control("window-one-short", path=DECODE, rollout=windows.window_one_short, windowed=True),
    _both("ring-overwritten", PREFILL, windows.ring_overwritten, windowed=True),
    Control("writeback-skipped", path=DECODE, rescore=windows.writeback_skipped, windowed=True),
    Control("ring-stale-on-reuse", path=PREFIX, rollout=windows.ring_stale_on_reuse, windowed=True),
)

STORES = (
    _both("tile-by-store", DECODE, dispatch.tile_by_store, keys=_tile),
    _both("scale-ignored-in-prefill", DECODE, stores.scale_ignored_in_prefill),
    _both("scale-from-first-input", BATCHED, stores.scale_from_first_input),
    _both("dequant-rounds", DECODE, stores.dequant_rounds),
)

REUSE = (
    Control(
        "stale-after-update", path=RESET, rollout=reuse.stale_after_update,
        keys=lambda split, tile: 4,
    ),
    Control(
        "prefix-shifts-positions", path=PREFIX, rollout=reuse.prefix_shifts_positions, keys=_tile
    ),
)  # fmt: skip

ALL = (*DISPATCH, *LINEARS, *POSITIONS, *SAMPLING, *WINDOWS, *STORES, *REUSE)

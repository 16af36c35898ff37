"""Every control, by name. What each one is and where it comes from: kvparity_contracts.controls."""

from __future__ import annotations

from kvparity.controls import export, semantics, zoo_table
from kvparity.controls.attended import uniform_attention, wrong_donor
from kvparity.controls.base import Control
from kvparity.controls.cache import narrow_cache, stale_slot
from kvparity.controls.held import baked_key, unwritten_slot
from kvparity.controls.order import split_by_batch, split_from_chunk, tile_by_query_length
from kvparity.controls.pair_calls import (
    batch_edge,
    empty_writes_neighbour,
    nan_without_keys,
    offset_int32,
    strides_ignored,
)
from kvparity.controls.score import log_of_softmax, temperature_ignored
from kvparity.controls.sequence import (
    padding_leaks,
    position_off_by_one,
    retokenised,
    wrong_input,
)
from kvparity_contracts.controls import CONTROLS as DESCRIBED

_ALL = (
    Control(
        "split-by-batch",
        rollout=split_by_batch,
        rescore=split_by_batch,
    ),
    Control(
        "tile-by-query-length",
        rollout=tile_by_query_length,
        rescore=tile_by_query_length,
    ),
    Control(
        "split-from-chunk",
        rollout=split_from_chunk,
        rescore=split_from_chunk,
    ),
    Control("position-off-by-one", rollout=position_off_by_one),
    Control("stale-slot", rollout=stale_slot),
    Control(
        "padding-leaks",
        rollout=padding_leaks,
    ),
    Control("narrow-cache", rollout=narrow_cache, rescore=narrow_cache),
    Control(
        "temperature-ignored",
        rescore=temperature_ignored,
    ),
    Control(
        "log-of-softmax",
        rescore=log_of_softmax,
    ),
    Control("retokenised", rescore_ids=retokenised),
    Control("unequal-lengths", drop=1),
    Control(
        "wrong-input",
        rollout=wrong_input,
    ),
    *(
        Control(name, rollout=planted, rescore=planted)
        for name, planted in semantics.PLANTED.items()
    ),
    Control("unwritten-slot", rollout=unwritten_slot),
    Control("baked-key", rollout=baked_key),
    Control("wrong-donor", rollout=wrong_donor),
    Control("uniform-attention", rollout=uniform_attention),
    Control("strides-ignored", rollout=strides_ignored, rescore=strides_ignored),
    Control("batch-edge", rollout=batch_edge),
    Control("empty-writes-neighbour", rollout=empty_writes_neighbour),
    Control("nan-without-keys", rollout=nan_without_keys),
    Control("offset-int32", rollout=offset_int32),
)

_PLANTED = {control.name: control for control in (*_ALL, *zoo_table.ALL, *export.ALL)}

CONTROLS: dict[str, Control] = {name: _PLANTED[name] for name in DESCRIBED if name in _PLANTED}

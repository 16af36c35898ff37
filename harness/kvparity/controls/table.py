"""Every control, by name. What each one is and where it comes from: kvparity_contracts.controls."""

from __future__ import annotations

from kvparity.controls import export, zoo_table
from kvparity.controls.attended import uniform_attention, wrong_donor
from kvparity.controls.base import Control
from kvparity.controls.cache import narrow_cache, stale_slot
from kvparity.controls.held import baked_key, unwritten_slot
from kvparity.controls.order import split_by_batch, split_from_chunk, tile_by_query_length
from kvparity.controls.score import log_of_softmax, temperature_ignored
from kvparity.controls.sequence import (
    padding_leaks,
    position_off_by_one,
    retokenised,
    wrong_input,
)
from kvparity_contracts.controls import CONTROLS as DESCRIBED
from kvparity_contracts.paths import PathName

_ALL = (
    Control(
        "split-by-batch",
        path=PathName("batched"),
        rollout=split_by_batch,
        rescore=split_by_batch,
        keys=lambda split, tile: split + 1,
    ),
    Control(
        "tile-by-query-length",
        path=PathName("decode"),
        rollout=tile_by_query_length,
        rescore=tile_by_query_length,
        keys=lambda split, tile: max(tile, 17),
    ),
    Control(
        "split-from-chunk",
        path=PathName("decode"),
        rollout=split_from_chunk,
        rescore=split_from_chunk,
        keys=lambda split, tile: split + 1,
    ),
    Control("position-off-by-one", path=PathName("decode"), rollout=position_off_by_one),
    Control("stale-slot", path=PathName("decode"), rollout=stale_slot, keys=lambda split, tile: 3),
    Control(
        "padding-leaks",
        path=PathName("padded-left"),
        rollout=padding_leaks,
        sequences=2,
        generate=1,
    ),
    Control("narrow-cache", path=PathName("decode"), rollout=narrow_cache, rescore=narrow_cache),
    Control(
        "temperature-ignored",
        path=PathName("prefill"),
        rescore=temperature_ignored,
        generate=1,
        tempered=True,
        scores_prompt=True,
    ),
    Control(
        "log-of-softmax",
        path=PathName("prefill"),
        rescore=log_of_softmax,
        generate=1,
        scores_prompt=True,
    ),
    Control("retokenised", path=PathName("decode"), rescore_ids=retokenised),
    Control("unequal-lengths", path=PathName("decode"), expect="void", drop=1),
    Control(
        "wrong-input",
        path=PathName("prefill"),
        rollout=wrong_input,
        generate=1,
    ),
    Control("unwritten-slot", path=PathName("decode"), rollout=unwritten_slot),
    Control("baked-key", path=PathName("decode"), rollout=baked_key),
    Control("wrong-donor", path=PathName("decode"), rollout=wrong_donor),
    Control("uniform-attention", path=PathName("decode"), rollout=uniform_attention),
)

_PLANTED = {control.name: control for control in (*_ALL, *zoo_table.ALL, *export.ALL)}

CONTROLS: dict[str, Control] = {name: _PLANTED[name] for name in DESCRIBED if name in _PLANTED}

"""One layer of a transformers cache: which columns it holds, and how it goes back.

A column is a place along the sequence axis of all that was given to the model, pads included. A
full layer keeps every column; a sliding one of ``DynamicCache`` keeps the last ``window - 1``, one
of ``StaticCache`` the last ``window``. Both keep them in order, the newest last, so the first
column a layer holds follows from how many columns there were and how many slots it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicLayer, StaticLayer

from kvparity.core.errors import UnsupportedError
from kvparity.core.relied.transformers import counts_tokens, set_count, sharing
from kvparity.subjects.hf.protocols import Cache, CacheLayer, ModelConfig


def holders(cache: Cache | None) -> dict[int, CacheLayer]:
    """The layers that store keys and values, by the number of their layer in the model.

    A layer that reads another one's cache (Gemma 3n, Gemma 4) or has no attention stores none.
    """
    layers = enumerate(getattr(cache, "layers", []))
    return {i: x for i, x in layers if isinstance(x, (DynamicLayer, StaticLayer))}


class Nothing:
    """Stands for a layer that reads another layer's cache: it stores nothing."""

    is_sliding = False

    def reset(self) -> None:
        """Nothing to forget."""


def plain(layer: CacheLayer) -> bool:
    """Whether the layer keeps nothing but keys and values as they were given."""
    return type(layer).__name__ in (
        "DynamicLayer",
        "DynamicSlidingWindowLayer",
        "StaticLayer",
        "StaticSlidingWindowLayer",
    )


def first_column(slots: int, columns: int) -> int:
    """The column in slot 0 of a layer with ``slots`` slots after ``columns`` columns."""
    return max(0, columns - slots)


@dataclass(frozen=True)
class LayerSnapshot:
    """A sliding layer as it was before one forward call, after ``columns`` columns.

    Its slots had the columns from ``first`` on; a slot before them had none.
    """

    keys: Tensor
    values: Tensor
    columns: int
    first: int


def remember(layer: CacheLayer, columns: int, lost: int = 0) -> LayerSnapshot | None:
    """Keep what the next forward call will drop; copies only where it overwrites in place.

    ``lost``: how many columns are gone for another reason than their age.
    """
    if not layer.is_sliding or not columns:
        return None
    first = max(first_column(layer.keys.shape[2], columns), lost)
    if isinstance(layer, StaticLayer):
        return LayerSnapshot(layer.keys.clone(), layer.values.clone(), columns, first)
    return LayerSnapshot(layer.keys, layer.values, columns, first)


def _columns(
    layer: CacheLayer, columns: int, before: LayerSnapshot | None, want: range, lost: int
) -> tuple[int, list[Tensor]]:
    """The first column at or behind ``want.start`` that is still there, and keys and values."""
    base = first_column(layer.keys.shape[2], columns)
    first = max(base, lost)
    found, kept = max(first, want.start), list[list[Tensor]]()
    if before is not None and before.columns >= min(first, want.stop):
        old_base = first_column(before.keys.shape[2], before.columns)
        found = max(before.first, want.start)
        upto = min(first, want.stop) - old_base
        kept = [[x[:, :, found - old_base : upto] for x in (before.keys, before.values)]]
    now = slice(max(first, want.start) - base, max(want.stop, first) - base)
    kept.append([layer.keys[:, :, now], layer.values[:, :, now]])
    return found, [torch.cat(same, dim=2) for same in zip(*kept, strict=True)]


def cut(
    layer: CacheLayer,
    columns: int,
    keep: int,
    before: LayerSnapshot | None,
    fill: float,
    lost: int = 0,
) -> int:
    """Forget the columns from ``keep`` on of a layer that has seen ``columns``, which are more.

    ``before`` brings back what a sliding layer dropped; its first ``lost`` columns are gone for
    another reason than their age. ``fill`` goes into the emptied slots of a static layer. Returns
    the first column that the layer holds now.

    Raises:
        UnsupportedError: a key that the next query would see is no longer there.
    """
    if not plain(layer):
        raise UnsupportedError(
            f"a {type(layer).__name__} of transformers' cache cannot go back to fewer tokens"
        )
    static, fill = isinstance(layer, StaticLayer), unused(layer, fill)
    if not layer.is_sliding:
        if static:
            layer.keys[:, :, keep:columns] = fill
            layer.values[:, :, keep:columns] = fill
            set_count(layer, keep, keep)
        else:
            layer.crop(keep - columns)
        return 0
    window = int(layer.max_cache_len if static else layer.sliding_window)
    oldest = max(0, keep - (window if static else window - 1))
    found, (k, v) = _columns(layer, columns, before, range(oldest, keep), lost)
    if found > max(0, keep - window + 1):
        raise UnsupportedError(
            f"going back to {keep} tokens needs column {max(0, keep - window + 1)} in a sliding "
            f"layer of transformers' cache, which holds {found} and later ones; go back no further "
            "than one forward call"
        )
    if not static:
        layer.keys, layer.values, layer.cumulative_length = k, v, keep
        return found
    for store, x in ((layer.keys, k), (layer.values, v)):
        store.fill_(fill)
        store.narrow(2, found - oldest, keep - found).copy_(x)
    set_count(layer, keep, min(keep, window))
    return found


def clear(layer: CacheLayer, fill: float) -> None:
    """What ``reset()`` left in a static layer becomes ``fill``; a dynamic one has nothing left."""
    if isinstance(layer, StaticLayer) and isinstance(layer.keys, Tensor):
        layer.keys.fill_(unused(layer, fill))
        layer.values.fill_(unused(layer, fill))


def unused(layer: CacheLayer, fill: float) -> float:
    """What an emptied slot may hold: ``fill``, or zero where that is how transformers counts."""
    return fill if counts_tokens(layer) else 0.0


def owners(config: ModelConfig, holding: Sequence[int]) -> list[int]:
    """For each layer of the model the index in ``holding`` of the layer whose cache it reads.

    A layer that shares reads the last layer of its own type that stores.
    """
    modes = sharing(config)
    types = getattr(config, "layer_types", None) or ["full_attention"] * len(modes)
    places = {layer: place for place, layer in enumerate(holding)}
    found = []
    for layer, mode in enumerate(modes):
        own = layer
        if mode == "reuse":
            stores = [i for i, m in enumerate(modes) if m == "store" and types[i] == types[layer]]
            own = stores[-1] if stores else layer
        if own not in places:
            raise UnsupportedError(f"layer {layer} of the model reads no layer that stores keys")
        found.append(places[own])
    return found

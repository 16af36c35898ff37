"""The caches of transformers: made as a user would make them, and open to inspection."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from kvparity.core.errors import UnsupportedError
from kvparity.core.relied.transformers import cache_argument, counts_tokens, unreset
from kvparity.subjects.hf import layers
from kvparity.subjects.hf.protocols import Cache, CacheLayer, CausalLM, ModelConfig

CLASSES = {"dynamic": "DynamicCache", "static": "StaticCache"}
GARBAGE = 32.0  # finite, because transformers' own backends multiply unused slots by zero


def dynamic(config: ModelConfig) -> Cache:
    """An empty cache that grows."""
    made: Cache = DynamicCache(config=config)
    return made


def require_keys(model: CausalLM) -> None:
    """Refuse a model whose cache holds no keys and values, such as one that keeps states alone.

    Raises:
        UnsupportedError: none of its layers stores keys, or its forward takes no cache at all.
    """
    # Before transformers 5 the cache of a state-space model has a class and a name of its own.
    if cache_argument(model) != "cache_params" and layers.holders(dynamic(model.config)):
        return
    raise UnsupportedError(
        f"{type(model).__name__} has no KV cache (its layers keep a state, not keys and values); "
        "kvparity verifies models that decode from cached keys and values"
    )


def static(model: CausalLM, *, batch: int, capacity: int, poison: bool) -> Cache:
    """An empty cache for ``batch`` rows with room for ``capacity`` tokens.

    ``poison`` fills the empty slots with NaN. Only the kvparity attention may be given that:
    transformers' own backends multiply unused slots by zero.
    """
    made = StaticCache(config=model.config, max_cache_len=capacity)
    cache: Cache = made
    if poison and all(map(counts_tokens, cache.layers)):
        heads, dims = _shapes(model, len(cache.layers))
        made.early_initialization(batch, heads, dims, model.dtype, model.device)
        for layer in layers.holders(cache).values():
            layers.clear(layer, float("nan"))
    return cache


def _shapes(model: CausalLM, count: int) -> tuple[int, int] | tuple[list[int], list[int]]:
    """KV heads and head size: one number, or one for each layer where they differ."""
    config = model.config.get_text_config(decoder=True)
    each: list[ModelConfig] = getattr(config, "per_layer_config", None) or [config] * count
    heads = [getattr(x, "num_key_value_heads", None) or x.num_attention_heads for x in each]
    dims = [getattr(x, "head_dim", None) or x.hidden_size // x.num_attention_heads for x in each]
    same = len(set(heads)) == len(set(dims)) == 1
    return (heads[0], dims[0]) if same else (heads, dims)


@dataclass
class CacheRow:
    """Where one sequence lies: its cache, its row in it, and the column of each of its positions.

    ``columns`` counts all columns that the cache was given, pads included. ``before`` holds the
    sliding layers as they were before the last forward call, ``lost`` by layer how many columns
    are gone for another reason than their age.
    """

    cache: Cache | None
    row: int = 0
    slots: list[int] = field(default_factory=list)
    columns: int = 0
    before: dict[int, layers.LayerSnapshot] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)

    def cut(self, keep: int, fill: float) -> None:
        """Forget the columns from ``keep`` on."""
        past, self.before = self.before, {}
        if keep >= self.columns:
            return
        for number, layer in layers.holders(self.cache).items():
            lost = self.lost.get(number, 0)
            self.lost[number] = layers.cut(layer, self.columns, keep, past.get(number), fill, lost)
        del self.slots[keep:]
        self.columns = keep

    def reset(self, fill: float) -> None:
        """transformers' own ``reset()``; static slots then hold ``fill``.

        Raises:
            UnsupportedError: a growing cache that ``reset()`` does not empty.
        """
        if self.cache is not None:
            reason = None if isinstance(self.cache, StaticCache) else unreset()
            if reason is not None:
                raise UnsupportedError(reason)
            self.cache.reset()
            for layer in layers.holders(self.cache).values():
                layers.clear(layer, fill)
        self.slots, self.columns, self.before, self.lost = [], 0, {}, {}

    def prefix(self, tokens: int, fill: float) -> CacheRow:
        """The first ``tokens`` positions in a deep copy of the cache.

        A dynamic cache is cropped by transformers' own ``crop``; a static one has none, so its
        slots are emptied.

        Raises:
            UnsupportedError: a sliding layer no longer has the keys.
        """
        cache = copy.deepcopy(self.cache)
        copied = CacheRow(cache, 0, list(self.slots), self.columns)
        copied.lost = dict(self.lost)
        if cache is None or isinstance(cache, StaticCache):
            copied.cut(tokens, fill)
            return copied
        try:
            cache.crop(tokens - self.columns)
        except (RuntimeError, ValueError) as error:  # transformers 4: a ValueError
            raise UnsupportedError(
                f"the first {tokens} of {self.columns} tokens cannot be taken over: {error}"
            ) from error
        del copied.slots[tokens:]
        copied.columns = tokens
        return copied

    def remember(self) -> None:
        """Called before each forward call: keep what the call makes sliding layers drop."""
        each = layers.holders(self.cache).items()
        past = {n: layers.remember(x, self.columns, self.lost.get(n, 0)) for n, x in each}
        self.before = {number: kept for number, kept in past.items() if kept is not None}


class SessionCache:
    """The caches of a session as the seam's ``LayeredCache``: sequences and positions.

    ``fill`` goes into the emptied slots of a static cache.
    """

    def __init__(
        self, places: Sequence[CacheRow], config: ModelConfig, fill: float = GARBAGE
    ) -> None:
        self.places, self.config, self.fill = places, config, fill

    def _holders(self) -> dict[int, CacheLayer]:
        """The layers that store, of any cache there is, or else of one as it would be made."""
        found = max((layers.holders(place.cache) for place in self.places), key=len)
        return found or layers.holders(dynamic(self.config))

    def layers(self) -> int:
        """The number of layers that store keys and values."""
        return len(self._holders())

    def _layer(self, layer: int, sequence: int) -> CacheLayer:
        found = list(layers.holders(self.places[sequence].cache).values())
        kind = type(self.places[sequence].cache).__name__
        if layer >= len(found) or not isinstance(found[layer].keys, Tensor):
            raise UnsupportedError(f"layer {layer} of the {kind} holds nothing for {sequence} yet")
        if not layers.plain(found[layer]):
            raise UnsupportedError(
                f"layer {layer} of the {kind} is a {type(found[layer]).__name__}, which keeps more "
                "than keys and values; its contents cannot be looked at"
            )
        return found[layer]

    def live(self, layer: int, sequence: int) -> range:
        """The positions whose keys the layer holds now."""
        place = self.places[sequence]
        if not place.slots:
            return range(0)
        first = layers.first_column(self._layer(layer, sequence).keys.shape[2], place.columns)
        number = list(layers.holders(place.cache))[layer]
        first = max(first, place.lost.get(number, 0))
        return range(bisect_left(place.slots, first), len(place.slots))

    def window(self, layer: int) -> int | None:
        """How many keys a query of this layer sees by the model's config, None: all.

        Raises ``UnsupportedError`` where that differs from query to query.
        """
        number, found = list(self._holders().items())[layer]
        if not found.is_sliding:
            return None
        each = getattr(self.config, "per_layer_config", None)
        window = getattr(each[number] if each else self.config, "sliding_window", None)
        if window is None:
            raise UnsupportedError(
                f"layer {number} of this {self.config.model_type} model attends in chunks, not in "
                "a window: how many keys a query sees depends on its place"
            )
        return int(window)

    def owner(self, model_layer: int) -> int:
        """The stored layer that layer ``model_layer`` of the model reads."""
        return layers.owners(self.config, list(self._holders()))[model_layer]

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The same: these caches store what the model computes."""
        return k, v

    def _find(
        self, layer: int, sequence: int, start: int, stop: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        place, found = self.places[sequence], self._layer(layer, sequence)
        alive = self.live(layer, sequence)
        if start < alive.start or stop > alive.stop:
            raise UnsupportedError(
                f"positions {start}..{stop} of sequence {sequence} are not all in layer {layer} of "
                f"the {type(place.cache).__name__}, which holds {alive.start}..{alive.stop}"
            )
        first = layers.first_column(found.keys.shape[2], place.columns)
        slots = [slot - first for slot in place.slots[start:stop]]
        index = torch.tensor(slots, dtype=torch.int64, device=found.keys.device)
        return found.keys[place.row], found.values[place.row], index

    @torch.inference_mode()
    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Copies of keys and values ``[stop-start, kv_heads, head_dim]`` as they are stored."""
        keys, values, index = self._find(layer, sequence, start, stop)
        k, v = (x.index_select(1, index).transpose(0, 1) for x in (keys, values))
        return k.contiguous(), v.contiguous()

    @torch.inference_mode()
    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        """Overwrite stored keys and values from position ``start`` on."""
        keys, values, index = self._find(layer, sequence, start, start + len(k))
        keys.index_copy_(1, index, k.transpose(0, 1))
        values.index_copy_(1, index, v.transpose(0, 1))

    @torch.inference_mode()
    def truncate(self, sequence: int, length: int) -> None:
        """Forget the positions from ``length`` on, by ``crop`` or from before the last call.

        Raises:
            UnsupportedError: a padded batch, or a sliding layer further back than one call.
        """
        place = self.places[sequence]
        if sum(other.cache is place.cache for other in self.places) > 1:
            raise UnsupportedError(
                "one sequence of a padded batch cannot be truncated: all rows of a transformers "
                "cache have the same columns"
            )
        place.cut(length, self.fill)

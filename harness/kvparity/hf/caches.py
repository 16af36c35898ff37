"""The caches of transformers: made as a user would make them, and open to inspection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, StaticCache

from kvparity.subject import UnsupportedError

# transformers 4 takes the slots of a static cache that are not all zero for its length.
_COUNTS_ITS_TOKENS = int(transformers.__version__.split(".")[0]) >= 5
CLASSES = {"dynamic": "DynamicCache", "static": "StaticCache"}


def dynamic(model: Any) -> Any:
    """An empty cache that grows."""
    return DynamicCache(config=model.config)


def static(model: Any, *, batch: int, capacity: int, poison: bool) -> Any:
    """An empty cache for ``batch`` rows with room for ``capacity`` tokens.

    ``poison`` fills the empty slots with NaN. Only the kvparity attention may be given that:
    transformers' own backends multiply unused slots by zero.
    """
    cache = StaticCache(config=model.config, max_cache_len=capacity)
    if poison and _COUNTS_ITS_TOKENS:
        config = model.config.get_text_config(decoder=True)
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        cache.early_initialization(batch, heads, dim, model.dtype, model.device)
        for layer in cache.layers:
            layer.keys.fill_(float("nan"))
            layer.values.fill_(float("nan"))
    return cache


@dataclass
class Place:
    """Where one sequence lies: its cache, its row in it, and the slot of each of its positions."""

    cache: Any
    row: int = 0
    slots: list[int] = field(default_factory=list)


class View:
    """The caches of a session as the seam's ``CacheView``: sequences and positions."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places

    def _layers(self, place: Place) -> list[Any]:
        layers = getattr(place.cache, "layers", [])
        return [x for x in layers if isinstance(getattr(x, "keys", None), Tensor)]

    def layers(self) -> int:
        """The number of layers that hold keys and values so far."""
        return max(len(self._layers(place)) for place in self.places)

    def _find(
        self, layer: int, sequence: int, start: int, stop: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        place = self.places[sequence]
        held = self._layers(place)[layer]
        slots = place.slots[start:stop]
        if len(slots) != stop - start or (slots and slots[-1] >= held.keys.shape[2]):
            raise UnsupportedError(
                f"positions {start}..{stop} of sequence {sequence} are not all in layer {layer} of "
                f"the {type(place.cache).__name__}, which holds {held.keys.shape[2]} slots"
            )
        index = torch.tensor(slots, dtype=torch.int64, device=held.keys.device)
        return held.keys[place.row], held.values[place.row], index

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

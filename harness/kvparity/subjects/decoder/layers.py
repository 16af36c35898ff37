"""What each layer attends to: its window, and whose cache it reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from kvparity.subjects.decoder.config import DecoderShape


@dataclass(frozen=True)
class Layer:
    """One layer of the model.

    ``window``: keys that a query sees, its own included (0: all). ``stored``: number of the stored
    layer whose cache it reads, counted among the layers that write. ``follower``: it writes none
    and has neither key nor value projection. ``head_dim``: width of its query heads, which a
    follower may have narrower than the keys; its queries are then filled up with zeros.
    """

    window: int
    stored: int
    follower: bool
    head_dim: int

    @property
    def scale(self) -> float:
        """What query-key products are multiplied by."""
        return 1.0 / math.sqrt(self.head_dim)


@cache
def layers_of(config: DecoderShape) -> tuple[Layer, ...]:
    """All layers in order.

    The last ``kv_shared_layers`` read the cache of the last layer of their own type before them
    that writes one, as Gemma 3n does (transformers' ``modeling_gemma3n.py``,
    ``kv_shared_layer_index``).
    """
    writing = config.layers - config.kv_shared_layers
    types = config.types
    found = []
    for number, kind in enumerate(types):
        follower = number >= writing
        # A slice [:-kv_shared_layers] would be empty where no layer is shared.
        owner = max(n for n in range(writing) if types[n] == kind) if follower else number
        found.append(
            Layer(
                window=config.sliding_window if kind == "sliding" else 0,
                stored=owner,
                follower=follower,
                head_dim=(config.shared_head_dim or config.head_dim)
                if follower
                else config.head_dim,
            )
        )
    return tuple(found)


def stored_windows(config: DecoderShape) -> tuple[int, ...]:
    """The windows of the layers that write, in order (0: none)."""
    return tuple(layer.window for layer in layers_of(config) if not layer.follower)

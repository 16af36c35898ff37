"""What a cache says of itself: who reads whom, who sees how much, what a store keeps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kvparity.subjects.base import CacheView, LayeredCache


@dataclass(frozen=True)
class Facts:
    """The declared shape of a cache, against which a trace is held.

    Where the cache tells no more than a plain one does, every layer has a store of its own, sees
    all keys and stores what it is given.
    """

    cache: CacheView | None

    @property
    def layered(self) -> LayeredCache | None:
        """The cache, if it reports its layers."""
        return self.cache if isinstance(self.cache, LayeredCache) else None

    def owner(self, layer: int) -> int:
        """The stored layer that layer ``layer`` of the model reads."""
        return layer if self.layered is None else self.layered.owner(layer)

    def window(self, layer: int) -> int | None:
        """How many keys a row of layer ``layer`` of the model sees; None: all."""
        return None if self.layered is None else self.layered.window(self.owner(layer))

    def keys(self, layer: int, place: int) -> int:
        """How many keys the row at ``place`` sees."""
        window = self.window(layer)
        return place + 1 if window is None else min(place + 1, window)

    def round_trip(self, stored: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What a reader gets of fresh ``k``, ``v`` in stored layer ``stored``."""
        return (k, v) if self.layered is None else self.layered.round_trip(stored, k, v)

"""Defects of the KV cache: what is read is not what was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kvparity.controls.base import PlantedSession, cache_of, each_session
from kvparity.plan.schedule import Step
from kvparity.subjects.base import CacheView, LayeredCache, Session

_NARROWER = {
    torch.float32: torch.bfloat16,
    torch.float16: torch.float8_e4m3fn,
    torch.bfloat16: torch.float8_e4m3fn,
}


def _held(cache: CacheView, layer: int, sequence: int, filled: int) -> range:
    """The positions that a layer holds: of a window only the newest."""
    return cache.live(layer, sequence) if isinstance(cache, LayeredCache) else range(filled)


class _StaleSlot(PlantedSession):
    """Before a sequence decodes for the first time, its newest slot falls back to old contents."""

    def __init__(self, inner: Session) -> None:
        super().__init__(inner)
        self.seen: set[int] = set()

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        cache = cache_of(self)
        for span in step:
            if span.decode and span.sequence not in self.seen and span.start > 1:
                self.seen.add(span.sequence)
                for layer in range(cache.layers()):
                    old = _held(cache, layer, span.sequence, span.start).start
                    k, v = cache.read(layer, span.sequence, old, old + 1)
                    cache.write(layer, span.sequence, span.start - 1, k, v)
        return self.inner.forward(step, ids)


stale_slot = each_session(_StaleSlot)
"""The slot of the last prompt token still holds an earlier write when decoding begins."""


class _NarrowCache(PlantedSession):
    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        yield from self.inner.forward(step, ids)
        cache = cache_of(self)
        for span in step:
            for layer in range(cache.layers()):
                start = max(span.start, _held(cache, layer, span.sequence, span.stop).start)
                k, v = cache.read(layer, span.sequence, start, span.stop)
                narrow = _NARROWER[k.dtype]
                cache.write(layer, span.sequence, start, k.to(narrow).to(k), v.to(narrow).to(v))


narrow_cache = each_session(_NarrowCache)
"""Keys and values are stored in a narrower dtype than declared; fresh tokens are not."""

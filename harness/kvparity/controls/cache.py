"""Defects of the KV cache: it is wrong, or is not what is read; some change no output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kvparity.controls.base import PlantedSession, PlantedSubject, cache_of, each_session
from kvparity.plan.schedule import Member, Step
from kvparity.subjects.base import CacheView, LayeredCache, Session, Subject

_NARROWER = {
    torch.float32: torch.bfloat16,
    torch.float16: torch.float8_e4m3fn,
    torch.bfloat16: torch.float8_e4m3fn,
}


def _stored(cache: CacheView, layer: int, sequence: int, filled: int) -> range:
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
                    held = _stored(cache, layer, span.sequence, span.start)
                    k, v = cache.read(layer, span.sequence, held.start, held.start + 1)
                    cache.write(layer, span.sequence, held.stop - 1, k, v)
        return self.inner.forward(step, ids)


stale_slot = each_session(_StaleSlot)
"""The slot of the last prompt token still holds an earlier write when decoding begins."""


class _NarrowCache(PlantedSession):
    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        yield from self.inner.forward(step, ids)
        cache = cache_of(self)
        for span in step:
            for layer in range(cache.layers()):
                held = _stored(cache, layer, span.sequence, span.stop)
                start, stop = max(span.start, held.start), min(span.stop, held.stop)
                if start >= stop:  # an encoder has fewer keys
                    continue
                k, v = cache.read(layer, span.sequence, start, stop)
                narrow = _NARROWER[k.dtype]
                cache.write(layer, span.sequence, start, k.to(narrow).to(k), v.to(narrow).to(v))


narrow_cache = each_session(_NarrowCache)
"""Keys and values are stored in a narrower dtype than declared; fresh tokens are not."""


class _UnwrittenSlot(PlantedSession):
    """When a sequence has computed its last token, the slot of that token is empty."""

    def __init__(self, inner: Session, members: Sequence[Member]) -> None:
        super().__init__(inner)
        self.members = members

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        yield from self.inner.forward(step, ids)
        cache = cache_of(self)
        for span in step:
            if span.decode and span.stop >= self.members[span.sequence].length - 1:
                for layer in range(cache.layers()):
                    k, v = cache.read(layer, span.sequence, span.start, span.stop)
                    nothing = torch.zeros_like(k), torch.zeros_like(v)
                    cache.write(layer, span.sequence, span.start, *nothing)


def unwritten_slot(subject: Subject) -> Subject:
    """The last token is computed from its own fresh key, which is not written back.

    sgl-project/sglang-jax#1606: layers with a window skipped the write; outputs were right until
    somebody reused the cache.
    """
    return PlantedSubject(subject, lambda s, m, layout: _UnwrittenSlot(s.session(m, layout), m))


class _BakedKey(PlantedSession):
    """For each length, the key before the decoded token's own is that of the first call."""

    def __init__(self, inner: Session) -> None:
        super().__init__(inner)
        self.baked: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        cache = cache_of(self)
        for span in step:
            for layer in range(cache.layers() if span.decode and span.start else 0):
                place = span.sequence, layer, span.start
                if place not in self.baked:
                    self.baked[place] = cache.read(layer, span.sequence, span.start - 1, span.start)
                cache.write(layer, span.sequence, span.start - 1, *self.baked[place])
        return self.inner.forward(step, ids)


baked_key = each_session(_BakedKey)
"""Decode reads one key from a constant that the first call with that length left behind.

As a program does that was traced with a part of the cache in it, pytorch/pytorch#160066. While
nobody changes that key, its outputs are right.
"""

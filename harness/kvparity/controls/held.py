"""Defects that no output shows: the cache is wrong, or is not what is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kvparity.controls.base import PlantedSession, PlantedSubject, cache_of, each_session
from kvparity.plan.schedule import Member, Step
from kvparity.subjects.base import Session, Subject


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

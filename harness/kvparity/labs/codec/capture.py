"""The exact run: what the codecs are compared with, and the keys and values that they code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.bits import differing
from kvparity.core.errors import SubjectError
from kvparity.labs.codec.session import Touched, live
from kvparity.plan.schedule import Plan, Span
from kvparity.record.execute import Record, run
from kvparity.subjects.base import CacheView, Subject


@dataclass(frozen=True)
class Captured:
    """Keys and values ``[n, kv_heads, head_dim]`` that one layer stored.

    ``prompt`` of the ``n`` are of prompts and come first: codecs calibrate on them. Positions that
    a window had dropped before its step ended are not there.
    """

    k: Tensor
    v: Tensor
    prompt: int


@dataclass(frozen=True)
class Reference:
    """The record of the exact run, its keys and values by stored layer, and the cache's dtype."""

    record: Record
    layers: tuple[Captured, ...]
    dtype: torch.dtype


class _Collector:
    def __init__(self) -> None:
        self.prompt: list[list[tuple[Tensor, Tensor]]] = []
        self.rest: list[list[tuple[Tensor, Tensor]]] = []

    def __call__(self, cache: CacheView, span: Span) -> None:
        for parts in (self.prompt, self.rest):
            while len(parts) < cache.layers():
                parts.append([])
        for layer in range(cache.layers()):
            held = live(cache, layer, span)
            if held:
                found = cache.read(layer, span.sequence, held.start, held.stop)
                (self.rest if span.decode else self.prompt)[layer].append(found)


def capture(
    subject: Subject, plan: Plan, tokens: Sequence[Sequence[int]], temperature: float
) -> Reference:
    """Run ``plan`` without a codec and keep what every layer stored.

    Raises ``SubjectError`` for keys or values that are not finite.
    """
    seen = _Collector()
    record = run(
        Touched(subject, seen), plan, [list(own) for own in tokens], temperatures=[temperature]
    )
    layers = []
    for number, (first, later) in enumerate(zip(seen.prompt, seen.rest, strict=True)):
        k, v = (torch.cat(parts) for parts in zip(*first, *later, strict=True))
        if not bool(torch.isfinite(k).all() & torch.isfinite(v).all()):
            raise SubjectError(f"layer {number} stores NaN or infinities without any codec")
        layers.append(Captured(k, v, sum(len(part[0]) for part in first)))
    if not layers:
        raise SubjectError("the cache of this subject holds no layer with keys and values")
    return Reference(record, tuple(layers), layers[0].k.dtype)


def same_bits(a: Record, b: Record) -> bool:
    """Whether two records of one plan agree in every row, and in the first temperature's values."""
    return (
        a.index == b.index
        and torch.equal(a.digests, b.digests)
        and not bool(differing(a.values[:, 0], b.values[:, 0]).any())
    )

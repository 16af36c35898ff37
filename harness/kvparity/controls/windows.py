"""Defects of sliding windows and rings: a row sees other keys than its window holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.base import Plant, PlantedSession, PlantedSubject, each_session
from kvparity.controls.reference import attention, changed_calls, decoder_of
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.attention_calls import AttentionOps, Outputs, PrefillCall, SlotsCall
from kvparity.subjects.base import LayeredCache, Session, Subject
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.read_back import unrolled


def _in_windows(change: Callable[[int], int], *, prefill: bool = True) -> Plant:
    """Plant: calls with a window see through the one that ``change`` makes of it."""

    def rewindowed(call: SlotsCall) -> SlotsCall:
        if not call.window:
            return call
        seen = change(call.window)
        if call.kv.ring and not seen:
            raise UnsupportedError("a ring holds no keys outside the window; plant it without one")
        return replace(call, window=seen)

    plant = changed_calls(rewindowed, prefill=prefill)

    def planted(subject: Subject) -> Subject:
        if not decoder_of(subject).model.config.sliding_window:
            raise UnsupportedError("this defect needs a decoder with a sliding window")
        return plant(subject)

    return planted


window_compiled_out = _in_windows(lambda window: 0)
"""The window was missing when kernels were planned: no mask was compiled into either of them.

Prefill and decode agree, and are wrong: sgl-project/sglang#31501.
"""

_one_short = _in_windows(lambda window: max(1, window - 1), prefill=False)


def window_one_short(subject: Subject) -> Subject:
    """Decode counts the window without the token's own key: sgl-project/sglang#32087."""
    if subject.describe().get("kind") == "transformers":
        from kvparity.controls.transformers import window_one_short as theirs  # slow to import

        return theirs(subject)
    return _one_short(subject)


def ring_overwritten(subject: Subject) -> Subject:
    """A ring of exactly the window's slots is written by whole chunks, and the mask only cut.

    The chunk's newest keys lie on those that its first rows still see: Lightning-AI/litgpt#2182.
    This project's kernels refuse such a ring, so prefill is given what it would find in the ring.
    """

    def straight(ops: AttentionOps) -> AttentionOps:
        def prefill(call: PrefillCall) -> Outputs:
            kv = unrolled(call.kv, call.q.dtype) if call.kv.ring else call.kv
            return ops.prefill(replace(call, kv=kv))

        return replace(ops, prefill=prefill)

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        session = inner.session(members, replace(layout, chunk=1))
        cache = session.cache()
        if not isinstance(cache, KVCache) or len(cache.regions) < 2:
            raise UnsupportedError("this defect needs rings, and the cache has none")
        cache.layout = layout  # or the cache would refuse the chunks
        return session

    return PlantedSubject(attention(straight)(subject), open_session)


def _windowed(session: PlantedSession) -> tuple[LayeredCache, list[tuple[int, int]]]:
    """The cache and its layers with a window: (layer, window)."""
    cache = session.cache()
    if isinstance(cache, LayeredCache):
        found = [(n, w) for n in range(cache.layers()) if (w := cache.window(n))]
        if found:
            return cache, found
    raise UnsupportedError("this defect needs layers with a window")


class _NotWrittenBack(PlantedSession):
    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        yield from self.inner.forward(step, ids)
        cache, windowed = _windowed(self)
        for span in step:
            for layer, window in windowed:
                live = cache.live(layer, span.sequence)
                start, stop = max(span.start, live.start), min(span.stop - window, live.stop)
                if start < stop:
                    k, v = cache.read(layer, span.sequence, start, stop)
                    cache.write(
                        layer, span.sequence, start, torch.zeros_like(k), torch.zeros_like(v)
                    )


writeback_skipped = each_session(_NotWrittenBack)
"""Keys that the last rows of a chunk do not see are never written: the pool holds zeros there.

Every output is right; a prefix taken from the cache later is not: sgl-project/sglang-jax#1606.
"""


class _StaleRing(PlantedSession):
    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        super().adopt(sequence, donor, tokens)
        cache, windowed = _windowed(self)
        for layer, window in windowed:
            held, old = cache.live(layer, sequence), cache.live(layer, donor)
            for position in range(max(held.start, tokens - window), tokens):
                before = max(old.start, position - window)
                k, v = cache.read(layer, donor, before, before + 1)
                cache.write(layer, sequence, position, k, v)


ring_stale_on_reuse = each_session(_StaleRing)
"""A reused prefix finds its window as it was one lap earlier: sgl-project/sglang#30339."""

"""A subject whose cache is coded: after every step, what the step wrote goes through a codec.

The keys and values of a step itself are seen fresh by that step and coded by every later one, in
the prompt as in decoding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member, Plan, Span, Step
from kvparity.subjects.base import CacheView, LayeredCache, Session, Subject
from kvparity_contracts.json_types import JsonObject

AfterSpan = Callable[[CacheView, Span], None]


def live(cache: CacheView, layer: int, span: Span) -> range:
    """The positions of ``span`` that ``layer`` still holds."""
    if not isinstance(cache, LayeredCache):
        return range(span.start, span.stop)
    held = cache.live(layer, span.sequence)
    return range(max(span.start, held.start), min(span.stop, held.stop))


@dataclass(frozen=True)
class Touched:
    """``subject``, with ``after`` called for every span once its step is computed."""

    subject: Subject
    after: AfterSpan

    @property
    def vocab(self) -> int:
        """The subject's own."""
        return self.subject.vocab

    @property
    def max_positions(self) -> int:
        """The subject's own."""
        return self.subject.max_positions

    @property
    def device(self) -> torch.device:
        """The subject's own."""
        return self.subject.device

    def unsupported(self, plan: Plan) -> str | None:
        """What the subject says; its own loop hides the cache."""
        if plan.generate:
            return "generate() does not show its cache between two steps"
        return self.subject.unsupported(plan)

    def session(self, members: Sequence[Member], layout: Layout) -> TouchedSession:
        """The subject's session, watched."""
        return TouchedSession(self.subject.session(members, layout), self.after)

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        """The subject's own."""
        return self.subject.values(rows, targets, temperatures)

    def oracle(self, member: Member, ids: Sequence[int], rows: range) -> Tensor:
        """The subject's own: nothing is coded in it."""
        return self.subject.oracle(member, ids, rows)

    def describe(self, ran: Counter[str] | None = None) -> JsonObject:
        """The subject's own."""
        return self.subject.describe(ran)


class TouchedSession:
    """A session that lets its cache be touched between two steps."""

    def __init__(self, inner: Session, after: AfterSpan) -> None:
        self.inner, self.after = inner, after

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """The inner session's rows; then ``after`` for every span."""
        yield from self.inner.forward(step, ids)
        cache = reach(self.inner)
        for span in step:
            self.after(cache, span)

    def observed(self) -> Counter[str]:
        """What the inner session observed."""
        return self.inner.observed()

    def cache(self) -> CacheView | None:
        """The inner session's cache."""
        return self.inner.cache()


def reach(session: Session) -> CacheView:
    """The cache of a session; ``UnsupportedError`` where it cannot be reached."""
    cache = session.cache()
    if cache is None:
        raise UnsupportedError(
            "this subject does not show its cache; a codec is put in through session.cache()"
        )
    return cache

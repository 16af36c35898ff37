"""A subject whose cache is coded: after every step, what the step wrote goes through a codec.

The keys and values of a step itself are seen fresh by that step and coded by every later one, in
the prompt as in decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from kvparity.controls.base import PlantedSession, PlantedSubject
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Plan, Span, Step
from kvparity.subjects.base import CacheView, LayeredCache, Session, Subject

AfterSpan = Callable[[CacheView, Span], None]


def live(cache: CacheView, layer: int, span: Span) -> range:
    """The positions of ``span`` that ``layer`` still holds."""
    if not isinstance(cache, LayeredCache):
        return range(span.start, span.stop)
    held = cache.live(layer, span.sequence)
    return range(max(span.start, held.start), min(span.stop, held.stop))


class Touched(PlantedSubject):
    """``subject``, with ``after`` called for every span once its step is computed."""

    def __init__(self, subject: Subject, after: AfterSpan) -> None:
        super().__init__(
            subject, lambda s, members, layout: TouchedSession(s.session(members, layout), after)
        )

    def unsupported(self, plan: Plan) -> str | None:
        """What the subject says; its own loop hides the cache."""
        if plan.generate:
            return "generate() does not show its cache between two steps"
        return self.inner.unsupported(plan)


class TouchedSession(PlantedSession):
    """A session that lets its cache be touched between two steps."""

    def __init__(self, inner: Session, after: AfterSpan) -> None:
        super().__init__(inner)
        self.after = after

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """The inner session's rows; then ``after`` for every span."""
        yield from self.inner.forward(step, ids)
        cache = reach(self.inner)
        for span in step:
            self.after(cache, span)


def reach(session: Session) -> CacheView:
    """The cache of a session; ``UnsupportedError`` where it cannot be reached."""
    cache = session.cache()
    if cache is None:
        raise UnsupportedError(
            "this subject does not show its cache; a codec is put in through session.cache()"
        )
    return cache

"""The wrappers through which defects are planted at the seam."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member, Plan, Step
from kvparity.subjects.base import CacheView, Faulting, Reusable, Session, Subject
from kvparity_contracts.json_types import JsonObject

Plant = Callable[[Subject], Subject]
Handover = Callable[[Sequence[int], int], list[int]]
"""(token ids, prompt length) -> the ids that the rescoring side gets instead."""


def unchanged(subject: Subject) -> Subject:
    """Plant nothing."""
    return subject


def same_ids(ids: Sequence[int], prompt: int) -> list[int]:
    """Hand the ids over by id, as it should be."""
    return list(ids)


class PlantedSession:
    """A session that passes everything on; a defect overrides one method."""

    def __init__(self, inner: Session) -> None:
        self.inner = inner

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Compute one step."""
        return self.inner.forward(step, ids)

    def observed(self) -> Counter[str]:
        """What really ran."""
        return self.inner.observed()

    def cache(self) -> CacheView | None:
        """The cache."""
        return self.inner.cache()

    def faults(self) -> Sequence[str]:
        """What was wrong with rows that are nobody's."""
        return self.inner.faults() if isinstance(self.inner, Faulting) else ()

    def reset(self) -> None:
        """Forget all sequences."""
        _reusable(self.inner).reset()

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """Take over a donor's first tokens."""
        _reusable(self.inner).adopt(sequence, donor, tokens)


class Watched(PlantedSession):
    """A session whose steps are told, each before it is computed."""

    def __init__(self, inner: Session, tell: Callable[[Step], object]) -> None:
        super().__init__(inner)
        self.tell = tell

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Compute one step."""
        self.tell(step)
        return super().forward(step, ids)


def _reusable(session: Session) -> Reusable:
    if not isinstance(session, Reusable):
        raise UnsupportedError("a session of this subject cannot be reset or shared")
    return session


class PlantedSubject:
    """A subject that passes everything on; a defect replaces ``open`` or overrides ``values``."""

    def __init__(
        self,
        inner: Subject,
        open_session: Callable[[Subject, Sequence[Member], Layout], Session] | None = None,
    ) -> None:
        self.inner = inner
        self.open_session = open_session
        self.vocab = inner.vocab
        self.max_positions = inner.max_positions
        self.device = inner.device

    def unsupported(self, plan: Plan) -> str | None:
        """Why this cannot be run, or None."""
        return self.inner.unsupported(plan)

    def session(self, members: Sequence[Member], layout: Layout) -> Session:
        """Open a session, planted if the defect lives there."""
        if self.open_session is None:
            return self.inner.session(members, layout)
        return self.open_session(self.inner, members, layout)

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        """What is compared."""
        return self.inner.values(rows, targets, temperatures)

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
        """The float64 rows."""
        return self.inner.oracle(member, ids, rows)

    def describe(self, ran: Counter[str] | None = None) -> JsonObject:
        """What is loaded."""
        return self.inner.describe(ran)


def each_session(wrap: Callable[[Session], Session]) -> Plant:
    """Plant: every session of the subject is what ``wrap`` makes of it."""

    def plant(subject: Subject) -> Subject:
        return PlantedSubject(subject, lambda s, members, layout: wrap(s.session(members, layout)))

    return plant


def cache_of(session: Session) -> CacheView:
    """The cache of a session.

    Raises:
        UnsupportedError: it cannot be reached.
    """
    cache = session.cache()
    if cache is None:
        raise UnsupportedError("this defect needs a cache that can be reached, and there is none")
    return cache

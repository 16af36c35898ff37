"""What a control is, and the wrapper through which defects are planted at the seam."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member, Plan, Step
from kvparity.subjects.base import CacheView, Faulting, Reusable, Session, Subject
from kvparity_contracts.controls import CONTROLS as DESCRIBED
from kvparity_contracts.controls import Control as Described
from kvparity_contracts.paths import PathName

Plant = Callable[[Subject], Subject]
Ids = Callable[[Sequence[int], int], list[int]]
"""(token ids, prompt length) -> the ids that the rescoring side gets instead."""


def unchanged(subject: Subject) -> Subject:
    """Plant nothing."""
    return subject


def same_ids(ids: Sequence[int], prompt: int) -> list[int]:
    """Hand the ids over by id, as it should be."""
    return list(ids)


@dataclass(frozen=True)
class Control:
    """How one control is planted; what it is and where it shows says its row in the contracts.

    ``path`` runs with ``rollout`` planted, the check's reference path with ``rescore`` planted and
    with the ids of ``rescore_ids``; ``drop`` tokens are missing at the end of the rescoring side.
    ``described`` is the row of that name in ``kvparity_contracts.controls``: a row here repeats
    nothing of it.
    """

    name: str
    rollout: Plant = unchanged
    rescore: Plant = unchanged
    rescore_ids: Ids = same_ids
    drop: int = 0
    described: Described | None = None

    def __post_init__(self) -> None:
        """Look up the description, unless one is given."""
        if self.described is None:
            object.__setattr__(self, "described", DESCRIBED[self.name])

    @property
    def fact(self) -> Described:
        """What the contracts say of it."""
        assert self.described is not None  # __post_init__ looked it up
        return self.described

    @property
    def path(self) -> PathName:
        """The path that runs with ``rollout`` planted."""
        return self.fact.path

    @property
    def expect(self) -> Literal["differs", "void"]:
        """What the check must say."""
        return self.fact.expect

    @property
    def scores_prompt(self) -> bool:
        """Whether the tokens of the prompt are scored, too."""
        return self.fact.scores_prompt

    def but(self, **changes: Any) -> Control:
        """The same control with another description: another path, say."""
        return replace(self, described=replace(self.fact, **changes))


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

    def oracle(self, member: Member, ids: Sequence[int], rows: range) -> Tensor:
        """The float64 rows."""
        return self.inner.oracle(member, ids, rows)

    def describe(self, ran: Counter[str] | None = None) -> Mapping[str, Any]:
        """What is loaded."""
        return self.inner.describe(ran)

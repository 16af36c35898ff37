"""What a control is, and the wrapper through which defects are planted at the seam."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from kvparity.schedule import Layout, Member, Plan, Step
from kvparity.subject import CacheView, Reusable, Session, Subject, UnsupportedError
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
    """One planted defect.

    ``path`` runs with ``rollout`` planted, the check's reference path with ``rescore`` planted and
    with the ids of ``rescore_ids``; ``drop`` tokens are missing at the end of the rescoring side.
    The defect shows where a sequence has at least ``keys`` keys, in a workload of at least
    ``sequences`` sequences of different length and ``generate`` generated tokens, and at a
    temperature that is not 1 if ``tempered``. ``keys`` is a function of the split and tile of the
    subject's order. ``tokens`` are compared per sequence, or more where it takes them to have the
    keys. With ``scores_prompt`` both sides run ``prefill`` and every token but the first is
    compared, prompt included: for a defect that one token shows only by chance. ``windowed``: it
    takes more keys than the sliding window. ``shared_prompt``: all prompts begin with the same tile
    of tokens.
    """

    name: str
    path: PathName
    expect: Literal["differs", "void"] = "differs"
    rollout: Plant = unchanged
    rescore: Plant = unchanged
    rescore_ids: Ids = same_ids
    drop: int = 0
    keys: Callable[[int, int], int] = lambda split, tile: 2
    sequences: int = 1
    generate: int = 2
    tokens: int = 4
    tempered: bool = False
    scores_prompt: bool = False
    windowed: bool = False
    shared_prompt: bool = False


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

    def reset(self) -> None:
        """Forget all sequences."""
        _reusable(self.inner).reset()

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """Take over a donor's first tokens."""
        _reusable(self.inner).adopt(sequence, donor, tokens)


def _reusable(session: Session) -> Reusable:
    if not isinstance(session, Reusable):
        raise UnsupportedError("a session of this subject can be neither reset nor shared")
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

    def describe(self) -> Mapping[str, Any]:
        """What is loaded."""
        return self.inner.describe()

"""How a plan is run, as events of the stream: the session is open, steps and actions are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kvparity.plan.schedule import Action, Step
from kvparity.subjects.base import Session
from kvparity_kernels.stream import listening


@dataclass(frozen=True)
class Opened:
    """The session is open, and nothing is computed yet."""

    session: Session


@dataclass(frozen=True)
class Acted:
    """The session was reset, or a sequence took over another's cache."""

    action: Action


@dataclass(frozen=True)
class Stepped:
    """One step is computed; ``ids[i]`` were the tokens of ``step[i]``."""

    session: Session
    step: Step
    ids: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Ended:
    """All steps are computed."""

    session: Session


class Watch:
    """Looks at a session while a plan runs; this one looks at nothing."""

    def opened(self, session: Session) -> None:
        """The session is open, and nothing is computed yet."""

    def acted(self, action: Action) -> None:
        """The session was reset, or a sequence took over another's cache."""

    def stepped(self, session: Session, step: Step, ids: Sequence[Sequence[int]]) -> None:
        """One step is computed; ``ids[i]`` were the tokens of ``step[i]``."""

    def ended(self, session: Session) -> None:
        """All steps are computed."""


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let ``watch`` look at the plans that run inside."""

    def stepped(event: Stepped) -> None:
        watch.stepped(event.session, event.step, event.ids)

    with (
        listening(Opened, lambda event: watch.opened(event.session)),
        listening(Acted, lambda event: watch.acted(event.action)),
        listening(Stepped, stepped),
        listening(Ended, lambda event: watch.ended(event.session)),
    ):
        yield

"""What really happens, as it happens: one stream of frozen values to whoever listens.

Launches of kernels are reported here; subjects report keys that they write, rows
that they attend, calls of attention and backends that ran. Counts, logs and traces are made of it
by whoever wants them. An event without a listener is not created.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

E = TypeVar("E")
Hear = Callable[[object], None]

_listening: ContextVar[tuple[tuple[type, Hear], ...]] = ContextVar("kvparity_events", default=())


@dataclass(frozen=True)
class Launched:
    """A kernel of this project was launched: its name, and what ``LaunchLog.kernels`` keeps."""

    name: str
    facts: dict[str, Any]


@contextmanager
def listening(kind: type[E], hear: Callable[[E], None]) -> Iterator[None]:
    """Call ``hear`` with every event of ``kind`` that happens inside, in this context.

    All who listen at once hear it, the outermost first.
    """

    def report(event: object) -> None:
        if isinstance(event, kind):
            hear(event)

    token = _listening.set((*_listening.get(), (kind, report)))
    try:
        yield
    finally:
        _listening.reset(token)


def heard(kind: type) -> bool:
    """Whether anybody listens to events of ``kind``: making one may cost time."""
    return any(issubclass(kind, each) for each, _ in _listening.get())


def emit(event: object) -> None:
    """Something happened."""
    for _, report in _listening.get():
        report(event)

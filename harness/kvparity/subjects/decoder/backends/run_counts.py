"""What a backend really ran, counted at the place where it ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

BACKEND = "backend."
"""What the names of attention backends begin with, in counts of what was observed."""

TORCH = "operations.torch"
"""What each of torch's operations beside attention counts as."""

_counts: ContextVar[Counter[str] | None] = ContextVar("backends_seen", default=None)


@contextmanager
def watching(counts: Counter[str]) -> Iterator[Counter[str]]:
    """Count into ``counts`` what runs inside."""
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def watched() -> bool:
    """Whether anybody counts; looking at what torch calls costs time."""
    return _counts.get() is not None


def note(name: str, times: int = 1) -> None:
    """Something ran."""
    counts = _counts.get()
    if counts is not None:
        counts[name] += times

"""How many processes a run may use, and by what: as asked for, or by cores and memory."""

from __future__ import annotations

from dataclasses import dataclass

from kvparity.core.isolation.fit import MemoryFit
from kvparity.core.machine import cores
from kvparity.core.words import some
from kvparity.run.options import MOST_JOBS

_ONE = {
    "server": "only one process sends requests to a server, so that a path that runs alone does",
    "sides": "one process keeps the logprobs of both sides",
}
"""Kinds of subject that take one process, whatever is asked for, and why."""


@dataclass(frozen=True)
class Jobs:
    """At most ``most``; ``why``: in words. ``fit``: where memory is looked at as well."""

    most: int
    why: str
    fit: MemoryFit | None = None

    def words(self) -> str:
        """What the report says of it, once all ran."""
        if self.fit is not None and self.fit.words:
            return self.fit.words
        return f"{some(self.most, 'job')}: {self.why}"


def jobs_of(asked: int | None, *, device: str, kind: str) -> Jobs:
    """``asked``: the number that was given, None where none was. ``kind``: of the subject."""
    if kind in _ONE:
        return Jobs(1, _ONE[kind])
    if asked is not None:
        return Jobs(asked, "as asked for")
    if device.startswith("cuda"):
        return Jobs(1, "the default on a GPU")
    found = cores()
    return Jobs(min(found.count, MOST_JOBS), found.by, MemoryFit() if found.count > 1 else None)

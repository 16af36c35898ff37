"""How many processes a run may use, and by what: as asked for, or by cores and memory."""

from __future__ import annotations

from dataclasses import dataclass

from kvparity.core.isolation.fit import MemoryFit
from kvparity.core.machine import cores
from kvparity.run.options import MOST_JOBS

_ONE = {
    "server": "a server is asked by one process at a time, or alone would not be alone",
    "sides": "of two sides one process keeps what they gave",
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
        return f"{self.most} job{'' if self.most == 1 else 's'}: {self.why}"


def jobs_of(asked: int | None, *, device: str, kind: str) -> Jobs:
    """``asked``: the number that was given, None where none was. ``kind``: of the subject."""
    if kind in _ONE:
        return Jobs(1, _ONE[kind])
    if asked is not None:
        return Jobs(asked, "as asked for")
    if device.startswith("cuda"):
        return Jobs(1, "one on a GPU, where no other is asked for")
    found = cores()
    return Jobs(min(found.count, MOST_JOBS), found.by, MemoryFit() if found.count > 1 else None)

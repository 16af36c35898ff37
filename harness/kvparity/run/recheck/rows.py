"""The chosen rows of a record as plain data, and two of them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvparity.core.bits import pattern
from kvparity.record.execute import Record
from kvparity.report.lines import Row
from kvparity.run.recheck.choice import Place

Rows = Mapping[str, Sequence[Row]]
"""The chosen rows by path."""
_MOST_VALUES = 16  # logprobs by temperature; a kernel pair's row is in its digest already


def rows_of(record: Record, places: Sequence[Place]) -> tuple[Row, ...]:
    """The rows ``places`` of a record."""
    found = []
    for place in places:
        at = record.index.index(place)
        values = record.values[at]
        bits = tuple(map(pattern, values)) if len(values) <= _MOST_VALUES else ()
        digest = f"0x{int(record.digests[at]) & (2**64 - 1):016x}"
        found.append((*place, digest, bits))
    return tuple(found)


def unlike(recorded: Rows, again: Rows) -> dict[str, str]:
    """By path, the first row that a fresh process computes otherwise than the run did.

    A path that the run has no rows of is unlike, too: nothing was recorded to compare with.
    """
    found = {}
    for path, rows in again.items():
        before = {row[:2]: row for row in recorded.get(path, ())}
        for row in rows:
            if before.get(row[:2]) != row:
                sequence, position = row[:2]
                found[path] = f"position {position} of sequence {sequence}"
                break
    return found

"""Two bit patterns side by side: which bits of them differ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class BitGroup:
    """Bits in a row that are alike, or that are not; four and four, with a space between."""

    text: str
    differs: bool


def bit_groups(pattern: str, other: str) -> tuple[BitGroup, ...]:
    """The bits of ``pattern`` (``0x…``), marked where those of ``other`` are not the same."""
    width = 4 * max(len(pattern) - 2, len(other) - 2)
    own, beside = (f"{int(each, 16):0{width}b}" for each in (pattern, other))
    places = range(width)
    return tuple(
        BitGroup("".join(own[at] + " " * (at % 4 == 3 and at < width - 1) for at in run), off)
        for off, run in groupby(places, lambda at: own[at] != beside[at])
    )

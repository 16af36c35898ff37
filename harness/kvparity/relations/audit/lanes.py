"""Which thread holds which columns of a row, as the layouts of tensor cores say.

Where two layouts give each row's columns to the same lanes in the same order, equal dataflow is one
tree of additions. The places are those of the fragments in NVIDIA's PTX ISA: of 8 columns a quad of
lanes holds two each.
"""

from __future__ import annotations

import re

from kvparity.relations.audit.ttgir import Reduce

_MMA = re.compile(
    r"nvidia_mma\(versionMajor = ([23]), versionMinor = \d+, warpsPerCTA = \[\d+, (\d+)\], "
    r"instrShape = \[16, (\d+)(?:, \d+)?\]\)$"
)
Row = tuple[tuple[int, ...], ...]
"""By warp along the row and lane of its quad: the columns that a thread holds, in its order."""


def row_of(layout: str, columns: int) -> Row | None:
    """The row of a layout; None if it is not one of a matrix instruction in registers."""
    found = _MMA.match(layout)
    if found is None:
        return None
    warps, width = int(found[2]), int(found[3])
    if columns % (warps * width):
        return None
    return tuple(
        tuple(
            start + block + 2 * lane + each
            for start in range(warp * width, columns, warps * width)
            for block in range(0, width, 8)
            for each in (0, 1)
        )
        for warp in range(warps)
        for lane in range(4)
    )


def rows(reduces: tuple[Reduce, ...]) -> frozenset[tuple[str, int, Row]] | None:
    """Every reduction along a row, by its combiner; None if one is not known."""
    found = []
    for each in reduces:
        row = row_of(each.layout, each.size) if each.axis == 1 else None
        if row is None:
            return None
        found.append((each.combiner, each.size, row))
    return frozenset(found)


def same_rows(left: tuple[Reduce, ...], right: tuple[Reduce, ...]) -> bool:
    """Whether both give each row's columns to the same lanes, in the same order."""
    one, two = rows(left), rows(right)
    return one is not None and one == two

"""Which thread holds which columns of a row, as the compiler's layouts say.

Where two layouts give each row's columns to the same lanes in the same order, equal dataflow is one
tree of additions. The places in a tile of a matrix instruction in registers are those of the
fragments in NVIDIA's PTX ISA: of 8 columns a quad of lanes holds two each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from kvparity.relations.audit.flow import LEAF, Node, Skeleton
from kvparity.relations.audit.ttgir import Reduce

_MMA = re.compile(
    r"nvidia_mma\(versionMajor = ([23]), versionMinor = \d+, warpsPerCTA = \[\d+, (\d+)\], "
    r"instrShape = \[16, (\d+)(?:, \d+)?\]\)$"
)
_BLOCKED = re.compile(
    r"blocked\(sizePerThread = \[\d+, (\d+)\], threadsPerWarp = \[\d+, (\d+)\], "
    r"warpsPerCTA = \[\d+, (\d+)\], order = \[1, 0\]\)$"
)
_LINEAR = re.compile(r"linear\(register = (.*), lane = (.*), warp = (.*), block = \[\]\)$")
_BASE = re.compile(r"\[(\d+), (\d+)\]")


@dataclass(frozen=True)
class RowInLanes:
    """A row in its threads: the columns of each in its order, by warp along the row, then by lane.

    ``apart``: how far apart its lanes are, one number for each doubling of them.
    """

    apart: tuple[int, ...]
    warps: int
    columns: tuple[tuple[int, ...], ...]


def row_of(layout: str, columns: int) -> RowInLanes | None:
    """The row of a layout with so many columns; None if it is of no kind that is known here."""
    if found := _LINEAR.match(layout):
        return _linear(found[1], found[2], found[3], columns)
    if found := _BLOCKED.match(layout):
        return _blocked(int(found[1]), int(found[2]), int(found[3]), columns)
    if (found := _MMA.match(layout)) is None:
        return None
    warps, width = int(found[2]), int(found[3])
    if columns % (warps * width):
        return None
    own = tuple(
        tuple(
            start + block + 2 * lane + each
            for start in range(warp * width, columns, warps * width)
            for block in range(0, width, 8)
            for each in (0, 1)
        )
        for warp in range(warps)
        for lane in range(4)
    )
    return RowInLanes((1, 2), warps, own)


def _blocked(size: int, lanes: int, warps: int, columns: int) -> RowInLanes | None:
    """``size`` neighbours to a lane, and again behind those of all lanes and warps."""
    if columns % (size * lanes * warps):
        return None
    own = tuple(
        tuple(
            start + size * lane + each
            for start in range(warp * size * lanes, columns, size * lanes * warps)
            for each in range(size)
        )
        for warp in range(warps)
        for lane in range(lanes)
    )
    return RowInLanes(tuple(2**bit for bit in range(lanes.bit_length() - 1)), warps, own)


def _linear(register: str, lane: str, warp: str, columns: int) -> RowInLanes | None:
    """Registers, lanes and warps each as the places that their bits stand for."""
    parts = [[(int(r), int(c)) for r, c in _BASE.findall(text)] for text in (register, lane, warp)]
    if any(r and c for part in parts for r, c in part):
        return None
    registers, lanes, warps = ([c for _, c in part if c] for part in parts)
    apart = tuple(2**bit for bit, (_, c) in enumerate(parts[1]) if c)
    own = tuple(
        tuple(w + at + each for each in _sums(registers))
        for w in _sums(warps)
        for at in _sums(lanes)
    )
    if sorted(c for each in own for c in each) != list(range(columns)):
        return None
    return RowInLanes(apart, 2 ** len(warps), own)


def _sums(bases: Sequence[int]) -> Iterable[int]:
    """What the numbers 0, 1, .. stand for, whose bits stand for these."""
    return [sum(each) for each in product(*((0, base) for base in reversed(bases)))]


def same_rows(left: tuple[Reduce, ...], right: tuple[Reduce, ...]) -> bool:
    """Whether both give each row's columns to the same lanes, in the same order."""
    one, two = _rows(left), _rows(right)
    return one is not None and one == two


def _rows(reduces: tuple[Reduce, ...]) -> frozenset[tuple[str, int, RowInLanes]] | None:
    found = []
    for each in reduces:
        row = row_of(each.layout, each.size) if each.axis == 1 else None
        if row is None:
            return None
        found.append((each.combiner, each.size, row))
    return frozenset(found)


def sum_words(reduces: tuple[Reduce, ...], loop: Skeleton) -> str:
    """How the weights of a tile are added along a row, as the layout and the dataflow show it."""
    sums = [each for each in reduces if each.combiner == "addf"]
    row = row_of(sums[0].layout, sums[0].size) if len(sums) == 1 else None
    if row is None:
        return f"not read: the layout is {'; '.join(each.layout for each in sums) or 'none'}"
    own = row.columns[0]
    shape, exchanges = _steps(loop, len(own))
    few = ", ".join(map(str, own[:4])) + (", …" if len(own) > 4 else "")
    across = f"; {row.warps} warps share a row, through shared memory" if row.warps > 1 else ""
    apart = " and ".join(f"{each} apart" for each in exchanges)
    return (
        f"each of {len(row.columns) // row.warps} lanes adds its {len(own)} of a tile's "
        f"{sums[0].size} columns (lane 0: {few}) {shape}; then lanes {apart}{across}; tiles one "
        "after the other, by fma"
    )


def _steps(loop: Skeleton, own: int) -> tuple[str, tuple[int, ...]]:
    """The form of a thread's own sum, and how far apart the lanes are whose sums are then added."""
    made = {each.name: each for each in loop.nodes}
    # Those of a pipelined loop come from its last turn.
    weights = {LEAF} | {each.name for each in loop.nodes if each.op.startswith("ex2.")}
    adds = [each for each in loop.nodes if each.op == "add.rn.f32"]
    first = [each for each in adds if set(each.parts) <= weights]
    users = {part: each for each in adds for part in each.parts}
    depth, exchanges = 0, list[int]()
    at: Node | None = first[0] if len(first) == 1 else None
    while at is not None:
        moved = [made[p].op for p in at.parts if p in made and made[p].op.startswith("shfl.")]
        if moved:
            exchanges.append(int(moved[0].rpartition(":")[2]))
        elif not exchanges:
            depth += 1
        at = users.get(at.name)
    if 2**depth == own:
        return "as a balanced tree", tuple(exchanges)
    if depth == own - 1:
        return "one after the other", tuple(exchanges)
    return "in a form that is not read", tuple(exchanges)

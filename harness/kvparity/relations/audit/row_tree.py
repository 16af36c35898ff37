"""In which order compiled attention adds the weights of a tile along a row.

The layout says which columns a thread has, the code how it adds them: exponentials are written in
the order of registers, and each addition of them, or of their sums, is followed from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kvparity.relations.audit.lanes import row_of
from kvparity.relations.audit.ptx import Instruction
from kvparity.relations.audit.signature import Signature
from kvparity_kernels.row_trees import RowTree

Weights = tuple[int, ...]
"""Exponentials by their number in the code, ascending."""


@dataclass
class _RowSums:
    """Values by register: sums of a thread's own weights, and those added over lanes."""

    own: dict[str, Weights] = field(default_factory=dict)
    moved: dict[str, tuple[str, int]] = field(default_factory=dict)
    lanes: dict[str, tuple[Weights, tuple[int, ...]]] = field(default_factory=dict)
    added: list[tuple[Weights, Weights]] = field(default_factory=list)


def read(walk: Signature) -> RowTree | None:
    """The tree of a kernel that walks tiles; None where it is not read."""
    sums = [each for each in walk.structure.reduces if each.combiner == "addf"]
    row = row_of(sums[0].layout, sums[0].size) if len(sums) == 1 and sums[0].axis == 1 else None
    found = _followed(walk.parts.loop or walk.parts.before)
    if row is None or row.warps > 1 or not found.lanes:
        return None
    longest = max(len(exchanges) for _, exchanges in found.lanes.values())
    whole = [each for each in found.lanes.values() if len(each[1]) == longest]
    own, lanes = row.columns[0], len(row.columns)
    if {exchanges for _, exchanges in whole} != {row.apart[::-1]}:
        return None
    rows = [weights for weights, _ in whole]
    # A layout has the registers of every row alike, so a row with another's weight stands out.
    alike = {tuple(weight - weights[0] for weight in weights) for weights in rows}
    if {len(weights) for weights in rows} != {len(own)} or len(alike) > 1:
        return None
    forms = [pairs for pairs in (True, False) if _follows(found.added, rows, pairs)]
    if not forms:
        return None
    bits = tuple(own[2**i] for i in range(len(own).bit_length() - 1))
    across = tuple(row.columns[2**i][0] for i in range(lanes.bit_length() - 1))
    return RowTree(bits, across[::-1], forms[0])


def _followed(part: Iterable[Instruction]) -> _RowSums:
    found, count = _RowSums(), 0
    for each in part:
        if not each.operands:
            continue
        to, given = each.operands[0], each.operands[1:]
        if each.op.startswith("ex2."):
            found.own[to], count = (count,), count + 1
        elif each.op.startswith("shfl.sync.bfly"):
            found.moved[to] = (given[0], int(given[1]))
        elif each.op == "add.rn.f32":
            _add(found, to, given)
    return found


def _add(found: _RowSums, to: str, given: Sequence[str]) -> None:
    one, two = given
    if one in found.own and two in found.own:
        left, right = sorted((found.own[one], found.own[two]))
        found.added.append((left, right))
        found.own[to] = tuple(sorted(left + right))
    for here, there in ((one, two), (two, one)):
        source, apart = found.moved.get(there, ("", 0))
        if source == here and here in found.own:
            found.lanes[to] = (found.own[here], (apart,))
        elif source == here and here in found.lanes:
            weights, before = found.lanes[here]
            found.lanes[to] = (weights, (*before, apart))


def _follows(
    added: Sequence[tuple[Weights, Weights]], rows: Sequence[Weights], pairs: bool
) -> bool:
    """Whether all additions within rows are of neighbours, or each of the next weight."""
    count = 0
    for row in rows:
        places = {weight: place for place, weight in enumerate(row)}
        for left, right in added:
            if not {*left, *right} <= places.keys():
                continue
            count += 1
            at = [places[each] for each in left + right]
            siblings = len(left) == len(right) and at[0] % len(at) == 0
            next_one = len(right) == 1 and at[0] == 0
            if at != list(range(at[0], at[0] + len(at))) or not (siblings if pairs else next_one):
                return False
    return count == sum(len(row) - 1 for row in rows)

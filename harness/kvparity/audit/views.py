"""Sides of attention cut so that their parts can be held against each other.

Prefill walks tiles and merges splits in one kernel; decode walks in one and merges in another.
Where a split has one tile, or so few that the compiler unrolls them, the walk is no loop of its own
and is known by the values that decode's first kernel computes.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvparity.audit.chains import Chain
from kvparity.audit.flow import Skeleton
from kvparity.audit.signature import Signature


@dataclass(frozen=True)
class Side:
    """One way to compute attention: a kernel that walks tiles, and one that merges if apart.

    ``walk`` is prefill, or the first kernel of decode; ``merge`` is decode's second kernel.
    """

    label: str
    walk: Signature
    merge: Signature | None = None

    @property
    def kernels(self) -> tuple[Signature, ...]:
        """All kernels of the side."""
        return (self.walk,) if self.merge is None else (self.walk, self.merge)

    @property
    def straight(self) -> bool:
        """Whether the walk over tiles is no loop of its own."""
        return not self.walk.around if self.merge is None else not self.walk.loops


@dataclass(frozen=True)
class View:
    """The parts of a side: chains and dataflow of the walk, then merging, then finishing."""

    chains: tuple[Chain, ...]
    before: Skeleton
    loop: Skeleton
    merge: Skeleton
    finish: Skeleton


def views(left: Side, right: Side) -> tuple[View, View] | str:
    """Both sides cut alike, or a sentence on why they cannot be."""
    for side in (left, right):
        if not side.kernels[-1].loops:
            return f"{side.label} has no loop that merges splits"
        if not side.walk.chains:
            return f"{side.label} shows no chain of matrix products"
    if left.straight != right.straight:
        looped = right if left.straight else left
        return f"only {looped.label} has a loop over tiles of its own"
    return _view(left, right), _view(right, left)


def _view(side: Side, other: Side) -> View:
    if side.straight:
        return _straight(side, other)
    walk, merge = side.walk, side.merge
    if merge is not None:
        return View(walk.chains, walk.before, walk.loop, *_merging(merge, _once(other, side)))
    # A pipelined loop ends behind itself; what decode finishes before it stores is not merging.
    stored = None if other.merge is None else other.walk.after
    merging = walk.elementwise("after", stored)
    return View(walk.chains, walk.before, walk.loop, merging, walk.elementwise("finish"))


def _once(side: Side, other: Side) -> Skeleton:
    """One merge, of a side that merges where it walks; else nothing."""
    if side.merge is not None:
        return Skeleton()
    part, theirs = ("loop", other.walk.before) if side.straight else ("after", other.walk.after)
    return side.walk.elementwise(part, theirs)


def _merging(merge: Signature, once: Skeleton) -> tuple[Skeleton, Skeleton]:
    """Merging and finishing. A turn that does ``once`` for several splits, and no more, is that."""
    loop, given = merge.elementwise("loop"), once.names
    if given and given <= loop.names and merge.elementwise("loop", once).names <= given:
        loop = once
    return loop, merge.elementwise("after")


def _straight(side: Side, other: Side) -> View:
    walk, merge, none = side.walk, side.merge, Skeleton()
    if merge is not None:
        return View(walk.chains, none, walk.before, *_merging(merge, _once(other, side)))
    finish = walk.elementwise("after")
    if other.merge is None:
        return View(walk.chains, walk.before, walk.loop, none, finish)
    # What decode's first kernel computes is the walk; what remains of the loop merges it.
    theirs = other.walk.before
    shared = Skeleton(tuple(each for each in walk.loop.nodes if each.name in theirs.names))
    return View(walk.chains, none, shared, walk.elementwise("loop", theirs), finish)

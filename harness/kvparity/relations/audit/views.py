"""Sides of attention cut so that their parts can be compared with each other.

Prefill walks tiles and merges splits in one kernel; decode walks in one and merges in another.
Where a split has one tile, or so few that the compiler unrolls them, the walk is not a loop of its
own and is known by the values that decode's first kernel computes.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvparity.relations.audit.chains import Chain
from kvparity.relations.audit.flow import LEAF, Skeleton
from kvparity.relations.audit.signature import Signature


@dataclass(frozen=True)
class AuditSide:
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
        """Whether the walk over tiles is not a loop of its own."""
        return not self.walk.around if self.merge is None else not self.walk.loops


@dataclass(frozen=True)
class View:
    """The parts of a side: chains and dataflow of the walk, then merging, then finishing."""

    chains: tuple[Chain, ...]
    before: Skeleton
    loop: Skeleton
    merge: Skeleton
    finish: Skeleton


def views(left: AuditSide, right: AuditSide) -> tuple[View, View] | str:
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


def _view(side: AuditSide, other: AuditSide) -> View:
    if side.straight:
        return _straight(side, other)
    walk, merge = side.walk, side.merge
    if merge is not None:
        return View(walk.chains, walk.before, walk.loop, *_merging(merge))
    # A pipelined loop ends behind itself; what decode finishes before it stores is not merging.
    stored = None if other.merge is None else other.walk.after
    merging = walk.elementwise("after", stored)
    return View(walk.chains, walk.before, walk.loop, merging, walk.elementwise("finish"))


def _merging(merge: Signature) -> tuple[Skeleton, Skeleton]:
    return _once(merge), merge.elementwise("after")


def _once(merge: Signature) -> Skeleton:
    """One merge. A turn of the loop may do several, one upon the other.

    What a merge leaves is chosen between a new value and an old one, a leaf in the first merge of
    a turn. With these taken as given the other merges must be the first again; else all is shown.
    """
    loop = merge.elementwise("loop")
    chosen = [each for each in loop.nodes if each.op == "selp.f32" and LEAF in each.parts]
    names = {each.name for each in chosen}
    left = Skeleton(tuple(each for each in chosen if not names & loop.made_from(each)))
    again = merge.elementwise("loop", left)
    if not again.names <= loop.names:
        return loop
    return Skeleton(tuple(sorted({*left.nodes, *again.nodes})))


def _straight(side: AuditSide, other: AuditSide) -> View:
    walk, merge, none = side.walk, side.merge, Skeleton()
    if merge is not None:
        return View(walk.chains, none, walk.before, *_merging(merge))
    finish = walk.elementwise("after")
    if other.merge is None:
        return View(walk.chains, walk.before, walk.loop, none, finish)
    # What decode's first kernel computes is the walk; what remains of the loop merges it.
    theirs = other.walk.before
    shared = Skeleton(tuple(each for each in walk.loop.nodes if each.name in theirs.names))
    return View(walk.chains, none, shared, walk.elementwise("loop", theirs), finish)

"""What two runs show beside their births: signs that tell one cause from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kvparity.births.digests import Digests, Place
from kvparity.core.bits import differing
from kvparity.plan.schedule import Plan
from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity.record.products import MODEL


@dataclass(frozen=True)
class Signs:
    """What was observed of two paths.

    ``moved``: what the candidate read from its cache a second time with other bits than the first.
    ``walked``: what it read in another order than the reference. ``shifted``: by how many positions
    its tokens stand behind the reference's (0: they do not). ``logits_differ``: rows of logits
    differ, not only what was made of them. ``unwritten``: compared rows of which one side alone is
    NaN, which is what memory holds that nobody wrote. ``products``: the
    devices whose products each side computed. ``traced``: the same steps give the reference's bits
    where no program was traced. ``unsteady``: the candidate, run again, gave other bits.
    """

    moved: tuple[str, ...] = ()
    walked: tuple[str, ...] = ()
    shifted: int = 0
    logits_differ: bool = True
    unwritten: int = 0
    products: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    traced: bool = False
    unsteady: bool = False


def observed(a: Record, a_digests: Digests, b: Record, b_digests: Digests) -> Signs:
    """The signs in a pass of digests of each side."""
    there = {place: row for row, place in enumerate(b.index)}
    order = [there[place] for place in a.index]
    values = b.values[order].cpu()
    equal = (a.digests == b.digests[order].to(a.digests.device)).cpu()
    nan = (a.values.cpu().isnan() ^ values.isnan()).any(-1)
    return Signs(
        moved=tuple(b_digests.moved),
        shifted=_shifted(a_digests.by_operation, b_digests.by_operation),
        logits_differ=not bool(equal.all()),
        unwritten=int(nan.sum()),
        products=(_products(a), _products(b)),
    )


def alike(a: Record, b: Record) -> bool:
    """Whether two runs of one path gave the same bits."""
    return bool((a.digests == b.digests).all()) and not bool(differing(a.values, b.values).any())


def without_program(candidate: PathRun) -> Record | None:
    """The candidate's steps, computed by its own code; None where they are."""
    if candidate.plan.layout.program == "eager":
        return None

    def eager(plan: Plan) -> Plan:
        return replace(plan, layout=replace(plan.layout, program="eager"))

    return candidate.run(cut=eager)


def _products(record: Record) -> tuple[str, ...]:
    return tuple(sorted(name for name in record.observed if name.startswith(MODEL)))


def _shifted(
    ours: Mapping[str, Mapping[Place, int]], theirs: Mapping[str, Mapping[Place, int]]
) -> int:
    """By how many positions the rows of the first operation, one for each token, are moved."""
    first = next((name for name in ours if name in theirs), None)
    if first is None:
        return 0
    found: set[int] = set()
    own, other = _sequences(ours[first]), _sequences(theirs[first])
    for name in own.keys() & other.keys():
        a, b = own[name], other[name]
        if a[: len(b)] == b[: len(a)] or len(set(a)) < 2:
            continue
        moves = (n for n in range(1, len(b) - 1) if b[n : n + len(a)] == a[: len(b) - n])
        found.add(next(moves, 0))
    return 0 if 0 in found else max(found, default=0)


def _sequences(rows: Mapping[Place, int]) -> dict[str, list[int]]:
    """The digests of each sequence, by position."""
    found: dict[str, list[int]] = {}
    for name, position in sorted(rows):
        found.setdefault(name, []).append(rows[name, position])
    return found

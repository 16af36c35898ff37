"""What the paths of several numbers of ranks show beside the reference on one: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvparity.record.execute import Record
from kvparity.relations.bits_and_limits import Comparison, invariance, ran_as_asked, same_work
from kvparity.relations.tp.rank import RankedPath

ADDS = ("reduce", "scatter_add")
"""In the name of every collective that adds inside its backend."""


@dataclass(frozen=True)
class RankVerdict:
    """A path at a number of ranks, and how it compares with the reference on one."""

    side: RankedPath
    found: Comparison


def compared(reference: Record, side: RankedPath, *, reduce: str, sums: int) -> RankVerdict:
    """Compare one path at one number of ranks.

    ``sums``: how often a step of the subject adds partial sums over ranks.
    """
    found = bits(reference, side.record)
    where = f"{side.path} at {side.ranks} ranks"
    if found.outcome == "differs":
        return RankVerdict(side, replace(found, reason=f"{where}: {found.reason}"))
    if side.unlike:
        reason = f"{where}: rank {side.unlike[0]} gave different bits than rank 0"
        return RankVerdict(side, Comparison("differs", reason, tokens=found.tokens))
    unclaimed = _unclaimed(side, reduce, sums)
    if found.outcome == "holds" and unclaimed is not None:
        return RankVerdict(side, Comparison("void", f"{where}: {unclaimed}", tokens=found.tokens))
    if found.outcome == "void":
        return RankVerdict(side, replace(found, reason=f"{where}: {found.reason}"))
    return RankVerdict(side, found)


def bits(reference: Record, candidate: Record, *, same_path: bool = True) -> Comparison:
    """Every value and every row: at each temperature, the first that differs else the first.

    ``same_path``: equal steps are no fault, as the numbers of ranks are not.
    """
    idle = ran_as_asked if same_path else same_work
    each = [
        invariance(reference, candidate, column=column, idle=idle)
        for column in range(reference.values.shape[1])
    ]
    return next((found for found in each if found.outcome != "holds"), each[0])


def _unclaimed(side: RankedPath, reduce: str, sums: int) -> str | None:
    """Why what ran is not what the check claims of its sums, or None."""
    adding = [each for each in side.collectives if any(word in each.operator for word in ADDS)]
    if reduce == "fixed" and adding:
        return (
            f"{adding[0].operator} ran {adding[0].times} times, and adds in its own order; "
            "reduce: fixed was claimed"
        )
    wanted = sums * len(side.record.plan.schedule)
    counted = adding if reduce == "all_reduce" else side.collectives
    ran = sum(each.times for each in counted if each.ranks == side.ranks)
    if ran < wanted:
        return f"partial sums are added {wanted} times, and {ran} collectives ran for it"
    return None


def worst(found: Sequence[RankVerdict]) -> RankVerdict:
    """The first that differs, else the first that is void, else the last."""
    for outcome in ("differs", "void"):
        for each in found:
            if each.found.outcome == outcome:
                return each
    return found[-1]

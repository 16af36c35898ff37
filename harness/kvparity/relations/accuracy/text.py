"""What an accuracy check measured, beside what its limits allow, and at which tokens."""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.core.words import digits, of_allowed, rounded
from kvparity.plan.results import CaseLine
from kvparity.relations.accuracy.line import AccuracyDetails, Spot


def nearest_lines(cases: Sequence[CaseLine]) -> list[str]:
    """Of each format the case that is nearest to its limits, or farthest over them."""
    lines = []
    for dtype in dict.fromkeys(case.dtype for case in cases):
        own = [case for case in cases if case.dtype == dtype and _share(case) is not None]
        if not own:
            continue
        case = max(own, key=lambda each: _share(each) or 0.0)
        where = f"{case.path} over {case.workload}, {dtype}"
        if case.temperature is not None:
            where += f", temperature {case.temperature:g}"
        limits = case.limits or {}
        words = of_allowed({name: getattr(case, name) for name in limits}, limits)
        lines += [f"    nearest its limit: {case.id} ({where}): {words}", *spot_lines(case)]
    return lines


def spot_lines(case: CaseLine) -> list[str]:
    """The first and the worst token of one case."""
    if not isinstance(case.details, AccuracyDetails):
        return []
    first, worst = case.details.first, case.details.worst
    if first is None or worst is None:
        return ["      every token is exact"]
    if first == worst:
        return [f"      first and worst token: {_spot(worst)}"]
    broken = case.verdict == "differs" and not case.faults  # those are of other rows
    over = "over the limit" if broken else "that is off"
    return [f"      first token {over}: {_spot(first)}", f"      worst token: {_spot(worst)}"]


def _share(case: CaseLine) -> float | None:
    """How much of its limits a case takes, 1 where one is just met; None where none was measured.

    A limit of 0 is either kept or broken. NaN is over every limit.
    """
    shares = []
    for name, limit in (case.limits or {}).items():
        if getattr(case, name) is None:
            return None
        value = float(getattr(case, name))
        if limit:
            shares.append(float("inf") if value != value else value / limit)
        else:
            shares.append(0.0 if value == 0 else float("inf"))
    return max(shares, default=None)


def _spot(spot: Spot) -> str:
    named = "" if spot.token is None else f", token {spot.token}"
    column = ""
    if spot.token is None:
        column = f", {spot.name or 'column ' + str(spot.column)}"
    return (
        f"sequence {spot.sequence}, position {spot.position}{named}{column}: "
        f"{digits(spot.value)}, float64 has {digits(spot.exact)}, "
        f"off by {rounded(spot.error)}"
    )

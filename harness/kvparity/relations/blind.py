"""Faults that a check's limits cannot see, and the limit that could."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from kvparity.core.words import of_allowed, rounded
from kvparity.plan.planted import Reach
from kvparity.plan.results import CaseLine, ControlLine


def blind(
    check: str, relation: str, controls: Sequence[ControlLine], results: Sequence[CaseLine]
) -> str | None:
    """Why the limits of an accuracy check prove too little, or None.

    ``controls``: all of the run. ``results``: the cases of the check, for what the pair measured.
    """
    for control in _reaching(relation, controls):
        rows = [row for row in control.reach if row.check == check]
        for row in rows:
            if not row.seen and _instead(control, row, rows, controls) is None:
                return _words(control.name, row, results)
    return None


def seen_instead(check: str, relation: str, controls: Sequence[ControlLine]) -> list[str]:
    """``window-one-long by liveness``: faults that a format of this check does not see itself."""
    found = []
    for control in _reaching(relation, controls):
        rows = [row for row in control.reach if row.check == check]
        for row in rows:
            instead = None if row.seen else _instead(control, row, rows, controls)
            if instead is not None:
                found.append(f"{control.name} by {instead}")
    return list(dict.fromkeys(found))


def _reaching(relation: str, controls: Sequence[ControlLine]) -> Iterator[ControlLine]:
    return (c for c in controls if c.relation == relation and c.reach)


def _instead(
    control: ControlLine, row: Reach, rows: Sequence[Reach], controls: Sequence[ControlLine]
) -> str | None:
    """What sees a fault that a limit does not: another relation, which needs no limit.

    Or another format of the same check, but only where no limit of this one could: rounding alone
    is as large.
    """
    for other in controls:
        same = other.name == control.name and other.relation != control.relation
        if same and other.caught:
            return other.relation
    if separating(row.measured, row.rounding) is None:
        return next((each.dtype for each in rows if each.seen), None)
    return None


def _words(name: str, row: Reach, results: Sequence[CaseLine]) -> str:
    dtype, measured, rounding = row.dtype, row.measured, row.rounding
    words = of_allowed({"max_abs": measured}, {"max_abs": row.limit})
    own = [float(case.max_abs) for case in results
           if case.dtype == dtype and case.max_abs is not None]  # fmt: skip
    this = f", this pair at most {rounded(max(own))}" if own else ""
    limit = separating(measured, rounding)
    if limit is None:
        so = f"no limit tells them apart in {dtype}; ask for float32 too"
    else:
        so = f"a limit of {limit:g} tells them apart"
    return (
        f"its limits cannot see {name}, which measures {words} in {dtype}; exact rows rounded to "
        f"{dtype} measure {rounded(rounding)}{this}: {so}"
    )


def apart(missed: ControlLine, names: Sequence[str], results: Sequence[CaseLine]) -> str:
    """What a missed control of accuracy measured, and the limit that would have caught it.

    ``names``: the measures that the check limits; nothing is said where none of them was measured.
    ``results``: the cases of the check, for what the subject itself measures.
    """
    for name in names:
        own = [float(found) for case in results if (found := case.measure(name)) is not None]
        if name not in missed.measured or not own:
            continue
        measured, most = float(missed.measured[name]), max(own)
        limit = separating(measured, most)
        so = "no limit tells them apart" if limit is None else f"a limit of {limit:g} would see it"
        return (
            f"; it measures {name} {rounded(measured)}, the subject at most {rounded(most)}: {so}"
        )
    return ""


def separating(measured: float, rounding: float) -> float | None:
    """A round number between rounding and a fault, or None where they are too near.

    Half way between them as factors: a right pair rounds more often than exact rows do.
    """
    if measured <= 2 * rounding:
        return None
    middle = math.sqrt(measured * max(rounding, measured / 1e6))
    unit = 10.0 ** math.floor(math.log10(middle))
    for step in (unit, unit / 10):
        found = float(f"{math.floor(middle / step) * step:.3g}")
        if rounding < found:  # and it is at most the middle
            return found
    return middle

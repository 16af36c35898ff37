"""The price table as text, what it says of a step and of tiles, and the goals."""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.core.columns import aligned
from kvparity.labs.bench.calls import OURS
from kvparity.labs.bench.document import CopyJson
from kvparity.labs.bench.goals import GoalRow
from kvparity.labs.bench.measure import SPLIT, CaseTimes, price, ratio, split_price
from kvparity.labs.bench.timing import Time

HEADER = ("case", "ours ms", "fastest other", "ms", "price", "of copy", "fixed split", "spread")
GOALS = ("goal", "needs", "answer", "worst", "in")
OTHER_RUN = "another run"
DRIFT = 0.03  # of the copy's rate, from the first case to the last


def table(found: Sequence[CaseTimes], copy: CopyJson | None) -> str:
    """One line per case. ``price``: how many times as long ours takes as the fastest other way.

    ``of copy``: bytes of the case per second as a share of what a plain copy moves; only where
    reading the inputs is nearly all there is to do (decode, logprob). ``fixed split``: how many
    times as long ours takes as with the best split for that case, and which. ``spread``: the
    quarter points of ours, as a share of its median.
    """
    return "\n".join(aligned([HEADER, *(_row(each, copy) for each in found)], right=True))


def _row(each: CaseTimes, copy: CopyJson | None) -> tuple[str, ...]:
    if each.left_out:
        return (each.case.name, "-", each.left_out, *[""] * 5)
    ours = each.times.get(OURS)
    if ours is None:
        return (each.case.name, "-", *[""] * 6)
    try:
        found, split = price(each), split_price(each)
    except ValueError:
        return (each.case.name, f"{ours.ms:.4f}", OTHER_RUN, *[""] * 4, f"{ours.spread:.1%}")
    name, cost = found or ("nothing", float("nan"))
    other = each.times[name].ms if found else float("nan")
    return (
        each.case.name,
        f"{ours.ms:.4f}",
        name,
        f"{other:.4f}" if found else "",
        f"x {cost:.2f}" if found else "",
        of_copy(each, copy),
        f"x {split[1]:.2f} ({split[0].removeprefix(SPLIT)})" if split else "",
        f"{ours.spread:.1%}",
    )


def of_copy(each: CaseTimes, copy: CopyJson | None) -> str:
    """The share of the copy bandwidth that ours reaches, where it is bound by memory."""
    ours = each.times.get(OURS)
    if copy is None or ours is None or each.case.what not in ("decode", "logprob"):
        return ""
    if copy["run"] != ours.run:
        return OTHER_RUN
    return f"{each.case.bytes / ours.ms / 1e6 / copy['gb_per_s']:.0%}"


def drift(copy: CopyJson | None) -> str:
    """How the device's rate changed while it was measured; empty for a small change."""
    if copy is None or "before" not in copy:
        return ""
    before, after = copy["before"], copy["after"]
    if abs(after / before - 1) <= DRIFT:
        return ""
    return (
        f"a copy moved {before} GB/s before the first case and {after} GB/s after the last: the "
        "device did not stay as it was; `of copy` is of the faster"
    )


def steps(found: Sequence[CaseTimes]) -> str:
    """Where a step's time goes: every way beside ours. Empty without steps."""
    return "\n".join(
        f"{each.case.name}: ours {each.times[OURS].ms:.3f} ms; "
        + "; ".join(f"{name} {_beside(each, time)}" for name, time in each.times.items()
                    if name != OURS)
        for each in found
        if each.case.what == "step" and OURS in each.times
    )  # fmt: skip


def tiles(found: Sequence[CaseTimes]) -> str:
    """Every candidate's time as a multiple of ours, the fastest first. Empty without candidates."""
    lines = []
    for each in found:
        beside = {n: t for n, t in each.times.items() if n.startswith(f"{OURS} [")}
        if beside and OURS in each.times:
            others = (
                f"{name.removeprefix(OURS).strip()} {_beside(each, beside[name])}"
                for name in sorted(beside, key=lambda name: beside[name].ms)
            )
            lines.append(
                f"{each.case.name}: ours {each.times[OURS].ms:.4f} ms; {'; '.join(others)}"
            )
    return "\n".join(lines)


def _beside(each: CaseTimes, time: Time) -> str:
    try:
        return f"x {ratio(time, each.times[OURS]):.2f}"
    except ValueError:
        return OTHER_RUN


def goals(rows: Sequence[GoalRow]) -> str:
    """One line per goal, and what an answer does not rest on."""
    lines = aligned([GOALS, *(_goal(row) for row in rows)], right=True)
    for row in rows:
        if row.missed:
            missed = ", ".join(f"{name} ({row.values[name]:.2f})" for name in row.missed)
            lines.append(f"{row.goal} is missed in {missed}")
        if row.unknown and row.values:
            lines.append(f"{row.goal} does not know of {', '.join(row.unknown)}")
        if row.note:
            lines.append(f"{row.goal}: {row.note}")
    return "\n".join(lines)


def _goal(row: GoalRow) -> tuple[str, ...]:
    if row.verdict == "not measured":
        return (row.goal, row.needed, row.verdict, "", "")
    answer: str = row.verdict
    if row.missed:
        count = f"{len(row.missed)} of {len(row.values)}"
        answer = f"missed in {count}, needs to be x {row.factor:.2f} as fast"
    return (row.goal, row.needed, answer, f"{row.values[row.worst]:.2f}", row.worst)

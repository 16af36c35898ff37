"""The price table as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvparity.bench.calls import OURS
from kvparity.bench.measure import Measured, price

HEADER = ("case", "ours ms", "fastest other", "ms", "price", "of copy", "spread")


def table(found: Sequence[Measured], copy: Mapping[str, Any] | None) -> str:
    """One line per case. ``price``: how many times as long ours takes as the fastest other way.

    ``of copy``: bytes of the case per second as a share of what a plain copy moves; only where
    reading the inputs is nearly all there is to do (decode, logprob). ``spread``: the quarter
    points of ours, as a share of its median.
    """
    rows = [HEADER, *(_row(each, copy) for each in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(each: Measured, copy: Mapping[str, Any] | None) -> tuple[str, ...]:
    if each.left_out:
        return (each.case.name, "-", each.left_out, "", "", "", "")
    ours = each.times.get(OURS)
    if ours is None:
        return (each.case.name, "-", "", "", "", "", "")
    try:
        found = price(each)
    except ValueError:
        return (each.case.name, f"{ours.ms:.4f}", "another run", "", "", "", f"{ours.spread:.1%}")
    name, ratio = found or ("nothing", float("nan"))
    other = each.times[name].ms if found else float("nan")
    return (
        each.case.name,
        f"{ours.ms:.4f}",
        name,
        f"{other:.4f}" if found else "",
        f"x {ratio:.2f}" if found else "",
        of_copy(each, copy),
        f"{ours.spread:.1%}",
    )


def of_copy(each: Measured, copy: Mapping[str, Any] | None) -> str:
    """The share of the copy bandwidth that ours reaches, where it is bound by memory."""
    ours = each.times.get(OURS)
    if copy is None or ours is None or each.case.what not in ("decode", "logprob"):
        return ""
    if copy["run"] != ours.run:
        return "another run"
    return f"{each.case.bytes / ours.ms / 1e6 / copy['gb_per_s']:.0%}"

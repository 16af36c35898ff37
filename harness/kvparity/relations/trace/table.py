"""A trace as a table in the terminal: what broke first, then step by step."""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.relations.trace.case_line import BrokenInvariant
from kvparity.relations.trace.judging import Judgement
from kvparity.relations.trace.lines import Line, Seen

HEAD = ("step", "position", "told", "length", "keys by layer", "donors", "sum off", "entropy")
SHOWN = 24  # lines of one sequence; a longer trace is cut in its middle
BREAKS = 5
_DIFFERENT = 12  # layers that are listed one by one


def render(lines: Sequence[Line], judgement: Judgement) -> str:
    """The whole trace as text, one table for each sequence."""
    text = [*_breaks(judgement)]
    bad = {(b.sequence, b.step, b.place) for b in judgement.broken}
    for name in dict.fromkeys(line.name for line in lines):
        own = [line for line in lines if line.name == name]
        marked = [(line.name, line.step, line.place) in bad for line in own]
        text += ["", f"sequence {name}, {len(own)} rows", *_table(own, marked)]
    silent = [name for name, count in judgement.said.items() if not count]
    if lines and silent:
        text += ["", *(f"not checked here: {name}" for name in silent)]
    return "\n".join(text)


def _breaks(judgement: Judgement) -> list[str]:
    found: dict[str, list[BrokenInvariant]] = {}
    for broken in judgement.broken:
        found.setdefault(broken.invariant, []).append(broken)
    text = []
    for name, breaks in list(found.items())[:BREAKS]:
        often = f" (first of {len(breaks)})" if len(breaks) > 1 else ""
        text += [f"  broken: {name}{often}", f"    {breaks[0]}"]
    if len(found) > BREAKS:
        text.append(f"  and {len(found) - BREAKS} more invariants")
    return text


def _table(lines: Sequence[Line], marked: Sequence[bool]) -> list[str]:
    rows = [_row(line, bad) for line, bad in zip(lines, marked, strict=True)]
    half = SHOWN // 2
    near = {i + off for i, bad in enumerate(marked) if bad for off in (-1, 0)}
    kept = [
        i
        for i in range(len(rows))
        if len(rows) <= SHOWN or i < half or i >= len(rows) - half or i in sorted(near)[:half]
    ]
    wide = [max(len(row[c]) for row in (HEAD, *(rows[i] for i in kept))) for c in range(len(HEAD))]
    text = [_line(HEAD, wide)]
    before = -1
    for i in kept:
        if i != before + 1:
            text.append(f"    … {i - before - 1} rows")
        text.append(_line(rows[i], wide) + ("  <" if marked[i] else ""))
        before = i
    return text


def _line(cells: Sequence[str], wide: Sequence[int]) -> str:
    return "    " + "  ".join(f"{cell:>{w}}" for cell, w in zip(cells, wide, strict=True))


def _row(line: Line, bad: bool) -> tuple[str, ...]:
    seen = line.layers
    return (
        str(line.step),
        str(line.position),
        "-" if line.told is None else str(line.told),
        _joined([str(s.length) for s in seen]),
        _joined([str(s.keys) for s in seen]),
        _joined(["?" if len(s.donors) != 1 else str(s.donors[0]) for s in seen], always=True),
        _sum(seen),
        _entropy(seen),
    )


def _joined(parts: Sequence[str], *, always: bool = False) -> str:
    """Equal parts once; of many layers the first ones."""
    if len(set(parts)) == 1 and not always:
        return parts[0]
    more = " …" if len(parts) > _DIFFERENT else ""
    return " ".join(parts[:_DIFFERENT]) + more


def _sum(seen: Sequence[Seen]) -> str:
    """The layer whose sum comes nearest to its bound, in float32 ulps."""
    known = [s.weights for s in seen if s.weights is not None]
    if not known:
        return "-"
    if any(w.recomputed for w in known):
        return "recomputed"
    worst = max(known, key=lambda w: w.deviation / w.bound)
    return f"{worst.deviation:.2g} of {worst.bound:.3g} ulps"


def _entropy(seen: Sequence[Seen]) -> str:
    """The mean share of log(keys) over layers."""
    shares = [
        s.weights.share for s in seen if s.weights is not None and s.weights.share is not None
    ]
    return f"{sum(shares) / len(shares):.1%}" if shares else "-"

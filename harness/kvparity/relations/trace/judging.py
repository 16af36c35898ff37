"""Check a trace against its invariants: what is broken, and what could not be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvparity.relations.trace.case_line import BrokenInvariant
from kvparity.relations.trace.facts import Facts
from kvparity.relations.trace.invariants import NAMES, OF_LAYERS, OF_LINES, Finding
from kvparity.relations.trace.lines import Line


@dataclass(frozen=True)
class Judgement:
    """What a trace shows. ``said``: by invariant, of how many rows and layers it was judged."""

    outcome: Literal["holds", "differs", "void"]
    reason: str
    broken: tuple[BrokenInvariant, ...]
    said: dict[str, int]


def judge(lines: Sequence[Line], facts: Facts, missing: str | None) -> Judgement:
    """Judge a whole trace; ``missing``: what the subject did not report, in a sentence.

    ``broken`` is in order of steps, and within a step in that of the invariants. Void: rows are
    missing, or stored layers hold the same so that a donor cannot be known.
    """
    broken: list[BrokenInvariant] = []
    said: Counter[str] = Counter(dict.fromkeys(NAMES, 0))
    last: dict[tuple[int, int], Line] = {}
    for line in lines:
        before = last.get((line.sequence, line.life))
        last[line.sequence, line.life] = line
        found: list[tuple[str, int | None, Finding]] = [
            (name, None, check(line, before)) for name, check in OF_LINES.items()
        ]
        found += [
            (name, seen.layer, check(line, seen, facts))
            for name, check in OF_LAYERS.items()
            for seen in line.layers
        ]
        for name, layer, finding in found:
            said[name] += finding is not False
            if isinstance(finding, str):
                broken.append(
                    BrokenInvariant(
                        invariant=name, step=line.step, sequence=line.name, place=line.place,
                        layer=layer, sentence=finding,
                    )
                )  # fmt: skip
    reason, outcome = _reason(lines, broken, missing)
    return Judgement(outcome, reason, tuple(broken), dict(said))


def _reason(
    lines: Sequence[Line], broken: Sequence[BrokenInvariant], missing: str | None
) -> tuple[str, Literal["holds", "differs", "void"]]:
    if broken:
        more = f" ({len(broken)} breaks in all)" if len(broken) > 1 else ""
        return f"{broken[0]}{more}", "differs"
    if missing is not None:
        return missing, "void"
    same = _ambiguous(lines)
    if same is not None:
        return same, "void"
    layers = max(len(line.layers) for line in lines)
    return f"all invariants hold in {len(lines)} rows of {layers} layers", "holds"


def _ambiguous(lines: Sequence[Line]) -> str | None:
    for line in lines:
        for seen in line.layers:
            if len(seen.donors) > 1:
                layers = " and ".join(str(layer) for layer in seen.donors)
                return (
                    f"stored layers {layers} hold the same keys and values of {line.name} up to "
                    f"position {line.place}: which of them layer {seen.layer} read is unknown"
                )
    return None

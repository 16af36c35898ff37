"""What tensor cores add, by the model, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.relations.audit.words import SETTLED
from kvparity.relations.order.modelled import Modelled, ModelledSide
from kvparity.relations.order.shape import describe

_MODEL = (
    "compiled and modelled, not run: the order is that of the compiled code and of a model of "
    "tensor cores; exp2 is in no model, so no value is predicted"
)


def render_modelled(found: Sequence[Modelled]) -> str:
    """All numbers of keys, each with what the audit says of both sides first."""
    lines = [_MODEL]
    for each in found:
        verdict = each.compiled.verdict
        deciding = "" if verdict == "same" else ": " + ", ".join(
            field.name for field in each.compiled.deciding
        )  # fmt: skip
        lines += ["", f"{verdict.upper()} on {each.arch} at {each.keys} keys{deciding}"]
        lines.append(f"  {each.shape}")
        alike = len({(side.sums, side.denominator) for side in each.sides}) == 1
        for side in each.sides[: 1 if alike else None]:
            label = " and ".join(s.label for s in each.sides) if alike else side.label
            lines += [f"  {label}", *_side(side)]
        if each.first:
            lines.append(f"  the last row sees keys {each.first} .. {each.keys - 1}")
        sources = dict.fromkeys(one.source for side in each.sides for one in side.sums)
        lines.append(f"  the model: {'; '.join(sources)}; {SETTLED}")
    return "\n".join(lines)


def _side(side: ModelledSide) -> list[str]:
    lines = []
    for one in side.sums:
        lines.append(f"    {one.part:<14}{one.words}")
        lines.append(f"    {'':<14}{describe(one.tree)}   {one.tree.fingerprint}")
    return [*lines, f"    {'denominator':<14}{side.denominator}"]

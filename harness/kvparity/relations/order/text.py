"""An order report in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvparity.core.environment import EnvironmentDocument
from kvparity.core.versions import lines as outside_line
from kvparity.relations.order.report import OrderReport, Part

_WORDS = {
    "same": "same",
    "different": "DIFFERENT",
    "undeclared": "UNDECLARED",
    "not-a-tree": "NOT A TREE",
}


def render(reports: Sequence[OrderReport], environment: EnvironmentDocument) -> str:
    """All reports, each with its verdict first."""
    lines = outside_line(environment)
    if environment["triton_mode"] == "interpreter":
        lines.append(
            "on the CPU: Triton kernels are interpreted, so this shows the algorithm's order, not "
            "a GPU's (there the matrix instruction decides inside a tile)"
        )
    for report in reports:
        lines += ["", *_report(report)]
    return "\n".join(lines).lstrip("\n")


def _report(report: OrderReport) -> list[str]:
    about = report.subject
    heads = about["heads"]
    assert isinstance(heads, Mapping)  # of a pair
    lines = [
        f"{report.verdict.upper()} at {report.keys} keys: {report.reason}",
        f"  {about['decode']} against row {report.rows} of {report.rows} of {about['prefill']}; "
        f"heads {heads['query']}/{heads['kv']} x {heads['dim']}, batch {report.batch}, "
        f"{about['execution']}",
    ]
    for part in report.parts:
        lines += _part(part)
    for done in report.replayed:
        said = done.skipped or f"{done.equal} of {done.total} results have the tree's bits"
        lines.append(f"  {'replay ' + done.side:<16}{said}")
    drawn = report.drawn
    lines.append(
        f"  {'random calls':<16}{drawn.equal} of {drawn.calls} agree in every bit"
        + (f" ({drawn.differing} of {drawn.values} values differ)" if drawn.differing else "")
    )
    if report.first:
        lines.append(f"  the last row sees keys {report.first} .. {report.keys - 1}")
    return lines + [f"  {note}" for note in report.notes]


def _part(part: Part) -> list[str]:
    word = _WORDS.get(part.status, "not measured")
    lines = [f"  {part.name:<16}{word:<12}  {part.decode if part.status == 'same' else part.seen}"]
    if part.status == "undeclared":
        lines.append(f"    both     {part.decode}")
    if part.status == "different":
        lines += [f"    decode   {part.decode}", f"    prefill  {part.prefill}"]
    if part.trees:
        marks = ", ".join(f"{side} {tree.fingerprint}" for side, tree in part.trees.items())
        spent = "; ".join(
            f"{what} {s.launches} launches {s.seconds:.2f} s" for what, s in part.cost.items()
        )
        lines.append(f"    {marks}   {spent}")
    return lines

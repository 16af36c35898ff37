"""The matrix in words: the list of controls, and the matrix as a table for a terminal or a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvparity.core.columns import aligned
from kvparity.core.versions import lines as outside_line
from kvparity.labs.defect_matrix.results import (
    ControlSummary,
    ListedControl,
    LocatedControl,
    MatrixDocument,
)
from kvparity_contracts.checks import CHECKS
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.defects import DEFECTS, defects_of
from kvparity_contracts.needs import needs

MARKS = {"caught": "x", "not caught": ".", "does not apply": "", "void": "?"}


def listed(control: Control) -> ListedControl:
    """What the list says of a control, as JSON values."""
    return {
        "name": control.name,
        "about": control.about,
        "source": control.source,
        "subjects": list(control.subjects),
        "needs": needs(control),
        "must": list(control.relations),
        "cause": control.cause,
        "born": control.born,
        "expect": control.expect,
        "defects": list(defects_of(control.name)),
    }


def listing() -> str:
    """All controls, and the defects that none expresses."""
    lines = []
    for control in CONTROLS.values():
        numbers = ", ".join(map(str, defects_of(control.name)))
        lines.append(f"{control.name}: {control.about}")
        where = f"  {', '.join(control.subjects)}; needs {needs(control)}"
        lines.append(where)
        must = f"  must be caught by {', '.join(control.relations)}; {control.source}"
        lines.append(must + (f"; defect {numbers}" if numbers else ""))
    expressed = sum(bool(each.controls) for each in DEFECTS)
    lines.append(f"\n{len(CONTROLS)} controls; {expressed} of {len(DEFECTS)} defects expressed")
    for each in DEFECTS:
        if not each.controls:
            lines.append(f"  not {each.number} ({each.source}): {each.reason}")
    return "\n".join(lines)


def rows(controls: Sequence[ControlSummary]) -> Iterator[list[str]]:
    """One row of the matrix for each control."""
    for each in controls:
        marks = [
            MARKS[each["by"][relation]] + ("!" if relation in each["missed"] else "")
            for relation in CHECKS
        ]
        numbers = ", ".join(map(str, each["defects"]))
        yield [each["control"], numbers, *marks, *_named(each["located"])]


NAMED = ("cause", "first operation")


def _named(found: LocatedControl | None) -> tuple[str, str]:
    """What was named, and what is true where that is another."""
    if found is None:
        return "", ""
    part = found["part"] or "" if found["first_right"] is not None else "the pair"
    cause = found["cause"] + ("" if found["cause_right"] else f" (is: {found['truth']})")
    if found["first_right"] is False:
        part = f"{part or 'none'} (is: {found['truth_part']})"
    return cause, part


def scored(document: MatrixDocument) -> str:
    """How often the right cause and the right first operation were named."""
    found = document["located"]
    return (
        f"named by kvparity locate: the cause of {found['cause']} of {found['of']} controls, the "
        f"first operation of {found['first']} of {found['of_first']}"
    )


def terminal(document: MatrixDocument) -> str:
    """The matrix with aligned columns, and what was missed."""
    head = ["control", "defects", *CHECKS, *NAMED]
    lines = aligned([head, *rows(document["controls"])])
    lines.append(
        "\nx caught   . not caught   ? void: not clean without the defect   ! must catch it"
    )
    missed = [each for each in document["controls"] if each["missed"]]
    for each in missed:
        lines.append(f"MISSED  {each['control']}: not caught by {', '.join(each['missed'])}")
    count = len(document["controls"])
    lines.append(f"{count - len(missed)} of {count} controls caught by all that must")
    lines.append(scored(document))
    return "\n".join(lines + outside_line(document["environment"]))


def page(document: MatrixDocument) -> str:
    """The same as a page of the documentation."""
    facts = document["environment"]
    head = ["control", "defects", *CHECKS, *NAMED]
    rule = [":--", ":--", *(":-:" for _ in CHECKS), ":--", ":--"]
    table = [head, rule, *([f"`{row[0]}`", *row[1:]] for row in rows(document["controls"]))]
    missed = sum(bool(each["missed"]) for each in document["controls"])
    count = len(document["controls"])
    parts = [
        "# The defect matrix",
        "Reported defects of engines and trainers, each planted as a control in a small contract "
        "that can show it, and looked at with every relation. `x`: caught. `.`: not caught. "
        "`?`: void, because the contract was not clean without the defect. Empty: the relation "
        "does not apply. `!`: missed by a relation that must catch it. Of a control that changes "
        "bits between paths: the cause, and the part of the model with the first operation that "
        "parts, as [`kvparity locate`](../locate.md) names them, and what is true where it names "
        "another.",
        f"`kvparity controls --run --out docs/results`: {count - missed} of {count} controls are "
        f"caught by all that must; {document['defects']['expressed']} of "
        f"{document['defects']['listed']} listed defects are expressed. "
        f"{scored(document).capitalize()}. Device {facts['device']}, {facts['triton_mode']}; "
        f"{document['elapsed_s']:.0f} s. On a CPU this shows the algorithm, not the "
        "hardware. Every entry is in [defect-zoo.json](defect-zoo.json).",
        "\n".join("| " + " | ".join(row) + " |" for row in table),
        "## The defects",
        "\n".join(_defects()),
    ]
    return "\n\n".join(parts) + "\n"


def _defects() -> Iterator[str]:
    yield "| number | report | source | expressed by |"
    yield "| --: | :-- | :-- | :-- |"
    for each in DEFECTS:
        by = ", ".join(f"`{name}`" for name in each.controls) or f"not: {each.reason}"
        yield f"| {each.number} | {each.title} | {each.source} | {by} |"

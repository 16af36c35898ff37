"""What changed, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvparity.core.words import some
from kvparity.report.compare.changes import RunChange, RunsCompared

SHOWN = 20
"""Changes of a kind that are listed; ``--json`` and ``--html`` have all."""
SECTIONS = (
    ("verdicts", "verdicts"),
    ("measures", "measures of cases with the same verdict"),
    ("bits", "bits of rows that both runs kept"),
    ("controls", "controls"),
    ("environment", "environment"),
    ("subject", "what was under verification"),
    ("contract", "contract"),
)
"""Field of a comparison, and what it is called."""


def lines(found: RunsCompared) -> Iterator[str]:
    """The head, what the results are now, then what they rest on."""
    before, after = found.before, found.after
    yield f"{before.report.contract.name} in {before.folder}: {before.report.verdict.upper()}"
    yield f"{after.report.contract.name} in {after.folder}: {after.report.verdict.upper()}"
    yield "the same results" if found.same else "other results"
    yield f"{some(found.alike, 'case')} alike"
    for field, title in SECTIONS:
        changes: Sequence[RunChange] = getattr(found, field)
        if changes:
            yield ""
            yield f"{title}: {len(changes)}"
        for each in changes[:SHOWN]:
            yield f"    {each.what}: {each.before or '(before)'} -> {each.after}" + (
                "  WORSE" if each.worse else ""
            )
        if len(changes) > SHOWN:
            yield f"    and {len(changes) - SHOWN} more"
    if found.diff:
        yield ""
        yield from found.diff[:60]
        if len(found.diff) > 60:
            yield f"... {len(found.diff) - 60} lines more"

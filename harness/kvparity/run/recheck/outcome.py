"""What fresh processes found, and the cases that rest on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvparity.plan.cases import Unit
from kvparity.plan.results import CaseLine
from kvparity.report.document import Recheck, UnlikeRow
from kvparity.report.lines import FreshRows, UnitLine
from kvparity.run.recheck.rows import unlike
from kvparity.run.recheck.selection import Selection


@dataclass(frozen=True)
class Outcome:
    """``unlike``: by (unit, path), the first row that a fresh process computes otherwise.

    ``paths`` of ``of`` paths were looked at, ``rows`` rows in all. ``skipped``: why none was.
    """

    unlike: Mapping[tuple[str, str], str]
    paths: int = 0
    of: int = 0
    rows: int = 0
    skipped: str | None = None

    def entry(self) -> Recheck:
        """What the report says of it."""
        differing = tuple(
            UnlikeRow(unit=unit, path=path, row=row) for (unit, path), row in self.unlike.items()
        )
        return Recheck(
            paths=self.paths,
            of=self.of,
            rows=self.rows,
            differing=differing,
            skipped=self.skipped,
        )


def outcome(
    selection: Selection, recorded: Sequence[UnitLine], answers: Sequence[FreshRows]
) -> Outcome:
    """Compare what fresh processes gave with the lines of the units."""
    before = {line.unit: line.rows for line in recorded}
    found = {
        (answer.unit, path): row
        for answer in answers
        for path, row in unlike(before.get(answer.unit, {}), answer.rows).items()
    }
    rows = sum(len(rows) for answer in answers for rows in answer.rows.values())
    return Outcome(found, selection.paths, selection.of, rows)


def told(folder: Path, case: str) -> str | None:
    """What the report of a run says of a case that held until fresh processes computed its rows.

    None: nothing, or there is no report that says anything.
    """
    try:
        checks = json.loads((folder / "run.json").read_text(encoding="utf-8"))["checks"]
        entries = [each for check in checks for each in check["cases"] if each["id"] == case]
        return next((str(each["reason"]) for each in entries if each.get("recheck")), None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def judged(units: Sequence[Unit], results: Sequence[CaseLine], found: Outcome) -> list[CaseLine]:
    """The cases, where one that held rests on a row that only this run gave: ``differs``."""
    words = {}
    for unit in units:
        for case in unit.cases:
            for path in (case.path, case.reference):
                row = found.unlike.get((unit.id, str(path)))
                if row is not None:
                    words[case.id] = (
                        f"path {path}, {row}: a fresh process that has not seen the other side "
                        "gives different bits than the run; state that the subject keeps "
                        "between calls decides them"
                    )
    return [
        line.rechecked(words[line.id]) if line.id in words and line.verdict == "holds" else line
        for line in results
    ]

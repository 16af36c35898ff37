"""What attempts on several machines gave otherwise: no attempt has the last word."""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.plan.results import CaseLine, ControlLine
from kvparity.report.lines import RetryLine
from kvparity.report.run_dir import Evidence


def control_key(name: str, relation: str) -> str:
    """A control as :attr:`RetryLine.changed` names it."""
    return f"{name} of {relation}"


def not_the_last_word(
    evidence: Evidence, cases: Sequence[CaseLine], controls: Sequence[ControlLine]
) -> tuple[list[CaseLine], list[ControlLine]]:
    """The lines, where two attempts gave different results: a case differs, a control is not
    caught. Nothing was changed since: the same task gave both.

    Raises:
        RunFolderError: a line of retries is none.
    """
    words = {
        name: f"attempt {line.attempt} of {line.task}: {line.why}"
        for _, line in evidence.read(RetryLine)
        for name in line.changed
    }
    return (
        [
            line.rechecked(words[line.id])
            if line.id in words and line.verdict != "differs"
            else line
            for line in cases
        ],
        [_uncaught(line, words) for line in controls],
    )


def _uncaught(line: ControlLine, words: dict[str, str]) -> ControlLine:
    why = words.get(control_key(line.name, line.relation))
    if why is None:
        return line
    return ControlLine.model_validate(
        {key: it for key, it in line.document().items() if key != "reach"}
        | {"caught": False, "seen": why}
    )

"""What a verification says to GitHub Actions: annotations on lines of the contract.

Escaped as the runner's own toolkit does (``packages/core/src/command.ts`` of actions/toolkit), so
no name or message can end a command or begin another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kvparity.report.document import RunReport
from kvparity.report.items import VERDICT, ReportItem, items
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.plain import plain, plain_lines
from kvparity_contracts.problems import Problem

MOST = 10
"""Errors of one step that GitHub shows; it drops the others without a word."""
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def annotation(title: str, message: str, file: Path | None, line: int, col: int = 0) -> str:
    """One error as a workflow command; without a ``file``, or with line 0, of no place."""
    properties = {"title": plain(title)}
    if file is not None and line:
        properties |= {"file": str(file), "line": str(line)} | ({"col": str(col)} if col else {})
    told = ",".join(f"{key}={value.translate(_PROPERTY)}" for key, value in properties.items())
    return f"::error {told}::{plain_lines(message).translate(_DATA)}"


def of_report(report: RunReport, loaded: LoadedContract, workspace: Path) -> list[str]:
    """At most :data:`MOST`, one for each line and word; the last one counts those left out."""
    file = beneath(loaded.path, workspace)
    name = f"kvparity {report.contract.name}"
    found = [
        annotation(f"{name}: {first.word.upper()}", _message(first, more), file, first.line)
        for first, more in _grouped(_bad(items(report, loaded)))
    ]
    return _at_most(found, name)


def of_problems(problems: Sequence[Problem], workspace: Path) -> list[str]:
    """What is wrong with a contract, each at its line and column."""
    found = [
        annotation("kvparity", str(each), beneath(Path(each.file), workspace), each.line, each.col)
        for each in problems
    ]
    return _at_most(found, "kvparity")


def beneath(path: Path, workspace: Path) -> Path | None:
    """A file as GitHub names it, or None where it is no file of the checkout."""
    try:
        return path.resolve().relative_to(workspace.resolve())
    except (ValueError, OSError):
        return None


def _bad(found: Sequence[ReportItem]) -> Iterator[ReportItem]:
    """What is wrong; the verdict of a check alone where none of its cases says the same."""
    told = {(each.group, each.word) for each in found if each.name != VERDICT}
    *every, _ = found  # the verdict of all says nothing more
    for each in every:
        if each.bad and not (each.name == VERDICT and (each.group, each.word) in told):
            yield each


def _grouped(found: Iterable[ReportItem]) -> list[tuple[ReportItem, int]]:
    """The first of each place and word, with how many there are more."""
    groups: dict[tuple[int, str, str], list[ReportItem]] = {}
    for each in found:
        groups.setdefault((each.line, each.word, each.group), []).append(each)
    return [(first, len(more)) for first, *more in groups.values()]


def _message(first: ReportItem, more: int) -> str:
    lines = [f"{first.group}: {first.name}: {first.reason}", *first.more]
    if more:
        lines.append(f"and {more} more like it")
    return "\n".join(lines)


def _at_most(found: list[str], name: str) -> list[str]:
    if len(found) <= MOST:
        return found
    left = len(found) - MOST + 1
    words = f"and {left} more; the log and the job summary have all"
    return [*found[: MOST - 1], annotation(name, words, None, 0)]

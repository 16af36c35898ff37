"""What the words of a YAML parser mostly mean: what was found, and what was probably meant."""

from __future__ import annotations

import re

from ruamel.yaml.error import MarkedYAMLError, StreamMark
from ruamel.yaml.reader import ReaderError

from kvparity_contracts.base import Fault, show

Place = tuple[int, int]
"""Line and column, counted from 1."""


QUOTES = "quotes around text that holds it, as in 'a: b'"
INDENT = "the keys of one mapping, and the items of one list, to begin in one column"
CAUSES: tuple[tuple[str, str, str], ...] = (
    # what the parser says, with its context; what was found; what is expected
    (r"found character '\\t'", "found a tab", "spaces, not a tab"),
    (
        r"found character '(?P<it>.)' that cannot",
        "found {it} at the start of a word",
        "quotes around text that begins with it",
    ),
    (
        r"mapping values are not allowed",
        "found a colon where no key is allowed",
        f"{QUOTES}; or the line to begin in the column of its neighbours",
    ),
    (
        r"end of stream.*quoted scalar",
        "found a quote that is never closed",
        "the same quote at its end",
    ),
    (
        r"unknown escape character '(?P<it>.)'",
        "found a backslash before {it}, which means nothing",
        "single quotes, in which a backslash is a backslash",
    ),
    (
        r"'<stream end>'.*flow (?P<it>mapping|sequence)",
        "found a bracket that is never closed",
        "a closing bracket",
    ),
    (
        r"expected ',' or '(?P<end>.)', but got '(?P<it>[^']*)'",
        "found {it} inside brackets",
        "a comma between the parts, and '{end}' at their end",
    ),
    (r"expected <block end>", "found a line that begins in the wrong column", INDENT),
    (
        r"could not find expected ':'",
        "found a line that is no key or item",
        "a colon and a space behind a key; or the line further to the right, as part of the text "
        "above",
    ),
    (r"another document", "found a second document", "one contract in a file, without '---'"),
)
OPENED = ("is never closed",)
"""What is reported where it began: at its end there is nothing to see."""


def syntax(error: MarkedYAMLError) -> tuple[Place, Fault]:
    """Line and column, from 1, and what is wrong there."""
    problem = _first_line(str(error.problem or error.context or "it cannot be read"))
    context = _first_line(str(error.context)) if error.context and error.problem else ""
    said = f"{problem} ({context})" if context else problem
    for pattern, found, expected in CAUSES:
        match = re.search(pattern, said)
        if match:
            parts = {name: show(part) for name, part in match.groupdict().items()}
            message = f"this is not YAML: {found.format(**parts)}"
            ended = message.endswith(OPENED)
            mark = (error.context_mark if ended else None) or error.problem_mark
            end = match.groupdict().get("end") or ""
            return placed(mark or error.context_mark), Fault((), message, _with(expected, end))
    return placed(error.problem_mark or error.context_mark), Fault((), f"this is not YAML: {said}")


def unreadable(text: str, error: ReaderError) -> tuple[Place, Fault]:
    """A character that YAML does not allow, where it stands."""
    before = text[: error.position]
    place = before.count("\n") + 1, len(before) - before.rfind("\n")
    message = (
        f"this is not YAML: found the character {show(text[error.position : error.position + 1])}"
    )
    return place, Fault((), message, "text without control characters")


def _with(expected: str, end: str) -> str:
    return expected.replace("{end}", end)


def placed(mark: StreamMark | None) -> Place:
    """Where a mark of the parser stands; the first character where it has set none."""
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].strip() if text.strip() else ""

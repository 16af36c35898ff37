"""A report as Markdown, for the summary page of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from kvparity.report.document import RunReport
from kvparity.report.terminal import render
from kvparity_contracts.plain import plain, plain_lines

LARGEST = 1024 * 1024
"""Bytes of the summary of one step; GitHub refuses a larger one as a whole."""
SMALLEST = 4096
"""Bytes in which the verdict and a first row always fit."""
_MARK = re.compile(r"([\\`*_{}\[\]()#+\-.!|~@:])")
_CLOSE = "</pre>\n\n</details>\n"


def summary(report: RunReport, room: int = LARGEST) -> str:
    """A table of checks, and the whole report to unfold, in at most ``room`` bytes.

    Raises:
        ValueError: ``room`` is less than :data:`SMALLEST`.
    """
    if room < SMALLEST:
        raise ValueError(f"{room} bytes are left of the {LARGEST} that a step may write")
    caught = sum(each.caught for each in report.controls)
    head = [
        f"### kvparity: {escaped(report.contract.name)}: {report.verdict.upper()}",
        "",
        f"{caught} of {len(report.controls)} planted defects caught",
        "",
        "| verdict | check | relation | cases | why |",
        "|---|---|---|--:|---|",
    ]
    rows = (
        "| " + " | ".join((each.verdict.upper(), escaped(each.name), escaped(each.relation),
                           str(len(each.cases)), escaped(each.reason))) + " |"
        for each in report.checks
    )  # fmt: skip
    fold = ["", "<details><summary>the whole report</summary>", "", "<pre>"]
    text = escape(plain_lines(render(report)), quote=False).split("\n")
    table = _within([*head, *rows], room)
    whole = _within([*fold, *text], room - len(table.encode()) - len(_CLOSE))
    unfolds = whole.count("\n") > len(fold)
    return table + (whole + _CLOSE if unfolds else "")


def escaped(text: str) -> str:
    """Text that is only text in a cell of a Markdown table."""
    return _MARK.sub(r"\\\1", escape(plain(text), quote=False))


def _within(lines: Iterable[str], room: int) -> str:
    """These lines while there is room, and how many are left out."""
    every = list(lines)
    sizes = [len(line.encode()) + 1 for line in every]
    if sum(sizes) <= room:
        return "".join(f"{line}\n" for line in every)
    room -= len(f"... {len(every)} lines more\n")
    kept = 0
    while sizes[kept] <= room:
        room -= sizes[kept]
        kept += 1
    return "".join(f"{line}\n" for line in [*every[:kept], f"... {len(every) - kept} lines more"])

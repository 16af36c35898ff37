"""Commands that look closer at a case: in a report for people, and on its page."""

from __future__ import annotations

from kvparity.plan.results import CaseLine
from kvparity.report.document import RunReport

ADVICE = "to look closer: "
WHERE = "where it begins: "
_LOCATED = ("attention", "decoder", "transformers")
"""Kinds of subjects in which a difference can be looked for."""


def replay_command(folder: str, case: CaseLine) -> str:
    """What reruns a case."""
    return f"kvparity replay {folder} {case.id}"


def locate_command(folder: str, case: CaseLine, report: RunReport) -> str | None:
    """What finds where a case that differs parts; None: nothing does."""
    looked = case.relation == "invariance" and report.subject.get("kind") in _LOCATED
    return f"kvparity locate {folder} {case.id}" if looked else None


def shrink_command(folder: str, case: CaseLine, report: RunReport) -> str | None:
    """What finds the smallest case that fails as this one does; None: it has no sequences."""
    looked = case.workload is not None and report.subject.get("kind") in _LOCATED
    return f"kvparity shrink {folder} {case.id}" if looked else None


def advice(report: RunReport) -> list[str]:
    """Lines about the first case that differs."""
    if report.verdict != "differs":
        return []
    bad = [c for check in report.checks for c in check.cases if c.verdict == "differs"]
    where = (locate_command(report.run_dir, case, report) for case in bad)
    lines = [f"{ADVICE}{replay_command(report.run_dir, bad[0])}"]
    lines += [f"{WHERE}{command}" for command in [next(filter(None, where), None)] if command]
    for found in report.located:
        first, *rest = found.words.splitlines()
        lines += ["", first, *(f"    {line}" for line in rest)]
    return [*lines, ""]

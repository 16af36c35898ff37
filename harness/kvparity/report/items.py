"""A report item by item, as the reports of other tools list tests: cases, controls, verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvparity.core.words import some
from kvparity.plan.results import CaseLine
from kvparity.relations.registry import RELATIONS
from kvparity.report.advice import ADVICE
from kvparity.report.document import CheckOfRun, RunReport
from kvparity.report.terminal import first_lines
from kvparity_contracts.base import KeyPath
from kvparity_contracts.check_base import PathCheck
from kvparity_contracts.loader import LoadedContract

GOOD = frozenset({"holds", "caught"})
LEFT_OUT = "not planted"
"""A control that cannot show here, and that no contract names: neither good nor bad."""
VERDICT = "verdict"
"""The name of the item that says what a check, or the contract, came to."""


@dataclass(frozen=True)
class ReportItem:
    """One case, control or verdict.

    ``word``: ``holds``, ``differs``, ``void``, ``error``; of a control ``caught``, ``missed`` or
    ``not planted``. ``line``: of the contract, from 1. ``more``: further lines for people.
    """

    group: str
    name: str
    word: str
    reason: str
    line: int
    more: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether the contract cannot hold with it: all but what is good or left out."""
        return self.word not in GOOD and self.word != LEFT_OUT


def items(report: RunReport, loaded: LoadedContract) -> tuple[ReportItem, ...]:
    """Every case with the verdict of its check behind it, every control, the verdict of all."""
    return tuple(_items(report, loaded))


def _items(report: RunReport, loaded: LoadedContract) -> Iterator[ReportItem]:
    for number, check in enumerate(report.checks):
        line, _ = loaded.place(("checks", number))
        for case in check.cases:
            place, _ = loaded.place(_path(loaded, number, case))
            again = f"{ADVICE}kvparity replay {report.run_dir} {case.id}"
            more = () if case.verdict == "holds" else (*_details(case), again)
            yield ReportItem(check.name, _name(case), case.verdict, case.reason, place, more)
        yield ReportItem(check.name, VERDICT, check.verdict, _reason(check), line)
    for control in report.controls:
        place, _ = loaded.place(_control(loaded, control.name))
        word, name = "caught" if control.caught else "missed", f"{control.name} {control.relation}"
        reason = control.seen if control.caught else f"expected {control.expected}: {control.seen}"
        yield ReportItem("controls", name, word, reason, place)
    for left in report.unplanted:
        place, _ = loaded.place(_control(loaded, left.control))
        word = "void" if left.asked else LEFT_OUT
        reason = f"not planted: {left.reason}"
        yield ReportItem("controls", f"{left.control} {left.relation}", word, reason, place)
    counts = f"{some(len(report.checks), 'check')}, {some(len(report.controls), 'control')}"
    yield ReportItem(report.contract.name, VERDICT, report.verdict, counts, 1)


def _name(case: CaseLine) -> str:
    """Such as ``c003 decode over long, bfloat16, temperature 0.7``: equal from run to run."""
    parts = [f"{case.id} {RELATIONS[case.relation].place(case)}", case.dtype]
    if case.kv_cache != case.dtype:
        parts.append(f"kv {case.kv_cache}")
    if case.temperature is not None:
        parts.append(f"temperature {case.temperature:g}")
    return ", ".join(parts)


def _reason(check: CheckOfRun) -> str:
    return f"{check.relation}: {check.reason}"


def _details(case: CaseLine) -> list[str]:
    return first_lines([case]) if case.workload is not None else []


def _path(loaded: LoadedContract, number: int, case: CaseLine) -> KeyPath:
    """Where the contract names the path of a case, or else its check."""
    check = loaded.contract.checks[number]
    paths = [str(each) for each in check.paths] if isinstance(check, PathCheck) else []
    if case.path in paths and ("checks", number, "paths") in loaded.text.values:
        return ("checks", number, "paths", paths.index(case.path))
    return ("checks", number)


def _control(loaded: LoadedContract, name: str) -> KeyPath:
    """Where the contract names a control, or asks for all."""
    named = loaded.contract.controls
    return ("controls", named.index(name)) if name in named and named != "all" else ("controls",)

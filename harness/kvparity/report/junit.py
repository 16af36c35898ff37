"""A report as JUnit XML, which CI systems show as a list of tests.

A file has a failure or an error if, and only if, the contract does not hold: ``differs`` and a
missed control are failures; ``void`` is an error, never a pass or a skip: nothing was shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from junitparser import Attr, Error, Failure, IntAttr, JUnitXml, Skipped, TestCase, TestSuite

from kvparity.report.document import RunReport
from kvparity.report.items import GOOD, LEFT_OUT, VERDICT, ReportItem, items
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.plain import plain, plain_lines

FAILURES = frozenset({"differs", "missed"})
"""Words of what was measured and is wrong; any other word that is bad is an error."""


class PlacedTestCase(TestCase):  # type: ignore[misc]  # has no types
    """With the line of the contract that asks for it."""

    file = Attr()
    line = IntAttr()


def junit(report: RunReport, loaded: LoadedContract) -> str:
    """The report as XML: a suite for each check, one for the controls, one for the verdict."""
    found = items(report, loaded)
    properties = {
        "contract": report.contract.path,
        "sha256": report.contract.sha256,
        "device": f"{report.environment.device} ({report.environment.device_name})",
        "command": report.command,
        "evidence": report.run_dir,
    } | {name: version for name, version in report.environment.versions.items() if version}
    return _xml(report.contract.name, found, loaded.file, properties, report.elapsed_s)


def unfinished(name: str, why: str) -> str:
    """The XML of a run without a report: one error that says why."""
    return _xml(name, [ReportItem(name, VERDICT, "error", why, 1)], None, {}, 0.0)


def _xml(
    name: str,
    found: Iterable[ReportItem],
    file: str | None,
    properties: dict[str, str],
    seconds: float,
) -> str:
    xml = JUnitXml(plain(name))
    for group, members in groupby(found, key=lambda each: each.group):
        suite = TestSuite(plain(group))
        for item in members:
            suite.add_testcase(_testcase(item, name, file, seconds))
        for key, value in properties.items():
            suite.add_property(key, plain(value))
        xml.add_testsuite(suite)
    xml.update_statistics()
    text: str | bytes = xml.tostring()
    return text if isinstance(text, str) else text.decode("utf-8")


def _testcase(item: ReportItem, name: str, file: str | None, seconds: float) -> TestCase:
    whole = item.group == name and item.name == VERDICT
    classname = plain(name if whole else f"{name}.{item.group}")
    case = PlacedTestCase(plain(item.name), classname, seconds if whole else 0.0)
    if file is not None:
        case.file, case.line = plain(file), item.line
    if item.word == LEFT_OUT:
        case.result = [Skipped(plain(item.reason))]
    elif item.word not in GOOD:
        kind = Failure if item.word in FAILURES else Error
        result = kind(plain(f"{item.word.upper()}: {item.reason}"), item.word)
        result.text = plain_lines("\n".join(item.more)) or None
        case.result = [result]
    return case

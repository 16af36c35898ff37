"""A contract as tests: one for each case, one for each control, and one for the whole verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from kvparity.plan.cases import Case, make
from kvparity.plan.kernel_cases import KernelCase
from kvparity.plan.texts import given
from kvparity.pytest_plugin.outcome import VerifyResult, ask
from kvparity.pytest_plugin.session import RunSession
from kvparity.report.document import RunReport
from kvparity.report.terminal import first_lines, render
from kvparity_contracts.files import load_whole
from kvparity_contracts.problems import ContractError


class ParityError(Exception):
    """What was found instead, in words."""


@dataclass(frozen=True)
class Naming:
    """What is said of a case in its test's name, because cases of its contract differ in it."""

    kv_cache: bool
    temperature: bool

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Naming:
        """What tells these apart."""
        return cls(
            any(case.numerics.kv_cache != case.numerics.execution for case in cases),
            len({case.temperature for case in cases}) > 1,
        )

    def name(self, case: Case | KernelCase) -> str:
        """Such as ``decode-short-bfloat16``."""
        parts = [case.numerics.execution]
        if isinstance(case, KernelCase):
            place = case.architecture or f"{case.keys}-keys"
            return "-".join([case.relation, place, *parts])
        if self.kv_cache:
            parts.append(f"kv-{case.numerics.kv_cache}")
        if self.temperature and case.temperature is not None:
            parts.append(f"t{case.temperature:g}")
        return "-".join([str(case.path), case.workload, *parts])


class ContractFile(pytest.File):
    """A contract. It is verified once, by the first of its tests that runs in any process."""

    running: RunSession

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Checks with their cases, controls, and the verdict."""
        try:
            loaded = given(load_whole(self.path)).loaded
            work = make(loaded.contract)
        except (ContractError, ValueError, OSError) as error:
            raise self.CollectError(str(error)) from None
        cases = [case for unit in work.units for case in unit.cases]
        naming = Naming.of(cases)
        every: list[Case | KernelCase] = [*cases, *work.kernel_cases]
        for check in loaded.contract.checks:
            own = [each for each in every if each.check == check.name]
            if own:
                group = Group.from_parent(self, name=_slug(check.name))
                group.items = _unique(naming, own)
                yield group
        planned = [(each.control, each.relation) for each in work.every_control]
        planned += [(each.control, each.relation) for each in work.unplanted if each.asked]
        if planned:
            controls = Controls.from_parent(self, name="controls")
            controls.items = planned
            yield controls
        yield Verdict.from_parent(self, name="verdict")

    def found(self) -> VerifyResult:
        """What verifying the contract gave."""
        return ask(self.running, self.path)


class Group(pytest.Collector):
    """The cases of a check."""

    items: dict[str, str]

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each."""
        for name, case in self.items.items():
            item = CaseItem.from_parent(self, name=name)
            item.case = case
            item.user_properties.append(("case", case))
            yield item


class Controls(pytest.Collector):
    """The planted defects."""

    items: Sequence[tuple[str, str]]

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each."""
        for control, relation in self.items:
            name = f"{control}-{relation}"
            item = ControlItem.from_parent(self, name=name)
            item.planned = control, relation
            item.user_properties += [("control", control), ("relation", relation)]
            yield item


class _Told(pytest.Item):
    """A test whose failure is words."""

    def report(self) -> RunReport:
        """What verifying the contract gave."""
        file = self.getparent(ContractFile)
        return cast("ContractFile", file).found().report(self.nodeid)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        """The words; a traceback of anything else."""
        if isinstance(excinfo.value, ParityError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it is from."""
        return self.path, None, self.nodeid.partition("::")[2]


class CaseItem(_Told):
    """Passes if the case holds."""

    case: str

    def runtest(self) -> None:
        """Look the case up."""
        report = self.report()
        case = next(c for check in report.checks for c in check.cases if c.id == self.case)
        if case.verdict != "holds":
            again = f"    to look closer: kvparity replay {report.run_dir} {case.id}"
            told = [f"{case.verdict.upper()}: {case.reason}", *first_lines([case])]
            raise ParityError("\n".join([*told, *([again] if case.verdict == "differs" else [])]))


class ControlItem(_Told):
    """Passes if the planted defect was caught; skipped, with the reason, if it was not planted."""

    planned: tuple[str, str]

    def runtest(self) -> None:
        """Look the control up."""
        report = self.report()
        for line in report.controls:
            if (line.name, line.relation) == self.planned:
                if line.caught:
                    return
                raise ParityError(f"not caught: expected {line.expected}, found {line.seen}")
        unplanted = next(u for u in report.unplanted if (u.control, u.relation) == self.planned)
        if unplanted.asked:
            raise ParityError(f"not planted, and the contract names it: {unplanted.reason}")
        pytest.skip(f"not planted: {unplanted.reason}")


class Verdict(_Told):
    """Passes if the whole contract holds: the tests pass if and only if the command ends with 0."""

    def runtest(self) -> None:
        """Look at the verdict."""
        report = self.report()
        if report.verdict != "holds":
            raise ParityError(render(report))


def _unique(naming: Naming, cases: Sequence[Case | KernelCase]) -> dict[str, str]:
    """Names of tests with the ids of their cases; the id is in the name where names are equal."""
    names = [naming.name(case) for case in cases]
    counts = Counter(names)
    return {
        name if counts[name] == 1 else f"{name}-{case.id}": case.id
        for name, case in zip(names, cases, strict=True)
    }


def _slug(name: str) -> str:
    return "-".join(name.split())

"""What a run of a small contract is said to have given, for tests of the rules that judge it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import toy
from run_documents import unchecked, unchecked_controls

from kvparity.plan.cases import Work, make
from kvparity.plan.kernel_cases import Unplanted
from kvparity.plan.results import CaseLine
from kvparity.report.verdict import Judged, judge
from kvparity_contracts.contract import Contract

CONTRACT = toy.contract(
    checks=[
        {"name": "bits", "relation": "invariance", "paths": ["decode", "chunked(20)"]},
        {"name": "more", "relation": "invariance", "paths": ["batched"]},
        {"name": "near", "relation": "accuracy",
         "limits": {"max_abs_dlogp": 1e-5, "approx_kl0": 1e-5}},
        {"name": "held", "relation": "cache", "paths": ["decode"]},
        {"name": "added", "relation": "order", "keys": [65]},
    ],
    subject={"kind": "decoder", "preset": "tiny", "order": {"split": 16, "tile": 16}},
)  # fmt: skip
NAMES = tuple(check.name for check in CONTRACT.checks)
Entry = dict[str, Any]


@dataclass
class Run:
    """What a run is said to have given: all holds, and every control is caught."""

    work: Work = field(default_factory=lambda: make(CONTRACT))
    contract: Contract = CONTRACT
    replaced: str | None = None
    unplanted: list[Unplanted] = field(default_factory=list)
    cases: list[Entry] = field(default_factory=list)
    controls: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        planned = [case for unit in self.work.units for case in unit.cases]
        for case in (*planned, *self.work.kernel_cases):
            self.cases.append(
                {"id": case.id, "check": case.check, "verdict": "holds", "reason": "because",
                 "path": str(getattr(case, "path", "")), "relation": case.relation,
                 "workload": getattr(case, "workload", ""), "dtype": case.numerics.execution}
            )  # fmt: skip
        for run in self.work.every_control:
            measured = {"max_abs_dlogp": 0.5, "approx_kl0": 1e-9}
            self.controls.append(
                {"name": run.control, "relation": run.relation, "caught": True,
                 "expected": "differs",
                 "measured": measured if run.relation == "accuracy" else {}}
            )  # fmt: skip

    def judge(self) -> tuple[str, list[Judged]]:
        """(verdict, entries of all checks)."""
        cases = unchecked(CaseLine, *self.cases)
        controls = unchecked_controls(*self.controls)
        return judge(self.contract, self.work, cases, controls, self.unplanted, self.replaced)

    def of(self, check: str) -> list[Entry]:
        """The cases of a check."""
        return [case for case in self.cases if case["check"] == check]

    def control(self, relation: str) -> Entry:
        """The first control of a relation."""
        return next(each for each in self.controls if each["relation"] == relation)

    def left(self, relation: str, *, asked: bool = False) -> None:
        """No control of a relation was planted."""
        gone = [each for each in self.controls if each["relation"] == relation]
        self.controls = [each for each in self.controls if each not in gone]
        self.unplanted += [Unplanted(e["name"], relation, "not here", asked) for e in gone]

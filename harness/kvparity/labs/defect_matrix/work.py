"""Compute entries: plant, look, and look at the same fixture with nothing planted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kvparity.controls.table import PLANTS, Planting, planting
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.labs.defect_matrix.entries import Entry, part_of, seen_by
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES
from kvparity.labs.defect_matrix.results import EntryResult
from kvparity.plan.cases import ControlRun
from kvparity.plan.kernel_cases import KernelCase, KernelControl, KernelNumerics, all_numerics
from kvparity.record.execute import Tokens
from kvparity.relations.asked import Kernels
from kvparity.relations.base import KernelRelation
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.order.relation import EDGES, PROBED, caught, certify
from kvparity.relations.registry import RELATIONS, kernel_relation
from kvparity.run.control_run import compare
from kvparity.run.unit import Runner, Setting
from kvparity.subjects.base import Subject
from kvparity.subjects.registry import factory
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.paths import DECODE, PREFILL
from kvparity_contracts.planning import in_kernels

SAME_STEPS = "both sides ran the same steps"
ORDER_KEYS = 40
"""Keys of an order check: past a split, and past another tile."""
AUDITED = "sm_90"


@dataclass
class BuiltFixture:
    """A fixture in this process: its subject, the tokens of its workloads, the clean outcomes."""

    setting: Setting
    numerics: KernelNumerics
    tokens: dict[str, Tokens] = field(default_factory=dict)
    clean: dict[tuple[object, ...], Comparison] = field(default_factory=dict)

    def known(self, workload: str) -> Tokens:
        """The tokens of a workload, drawn once."""
        if workload not in self.tokens:
            runner = Runner(self.setting, self.setting.plans(workload), None)
            runner.rollout(DECODE)
            self.tokens[workload] = runner.known()
        return self.tokens[workload]


_all_built: dict[tuple[str, str], BuiltFixture] = {}


def build(fixture: str, device: str) -> BuiltFixture:
    """A fixture in this process, built once."""
    if (fixture, device) not in _all_built:
        contract = FIXTURES[fixture].contract
        numerics = all_numerics(contract)[0]
        subject = factory(contract.subject.kind)(
            contract.subject,
            execution=numerics.execution,
            kv_cache=numerics.kv_cache,
            device=torch.device(device),
            seed=contract.seed,
            base=Path(),
        )
        _all_built[fixture, device] = BuiltFixture(Setting(contract, subject), numerics)
    return _all_built[fixture, device]


def compute(entries: list[Entry], device: str) -> list[EntryResult]:
    """The results of some entries, in their order."""
    return [_result(entry, device) for entry in entries]


def _result(entry: Entry, device: str) -> EntryResult:
    start = time.perf_counter()
    try:
        path, found, seen = _look(entry, device)
    except UnsupportedError as error:
        path, found, seen = "", "does not apply", str(error)
    except SubjectError as error:  # planted, a defect may end a run; that is seen
        path, found, seen = "", "caught", f"the run ended: {error}"
    return {
        "control": entry.control,
        "habitat": entry.fixture,
        "workload": entry.workload or None,
        "relation": entry.relation,
        "path": path,
        "found": found,
        "seen": seen,
        "seconds": round(time.perf_counter() - start, 2),
    }


def _look(entry: Entry, device: str) -> tuple[str, str, str]:
    if isinstance(RELATIONS[entry.relation], KernelRelation):
        return _look_at_kernels(entry, build(entry.fixture, device))
    control = seen_by(CONTROLS[entry.control], entry.relation)
    part = part_of(CONTROLS[entry.control], FIXTURES[entry.fixture], entry.workload)
    assert control is not None  # or it would be no entry
    assert part is not None
    built = build(entry.fixture, device)
    contract = built.setting.contract
    check = next(each for each in contract.checks if each.relation == entry.relation)
    attention = contract.subject.kind == "attention"
    column = int(control.tempered)
    job = ControlRun(
        control=control.name,
        check=check.name,
        relation=entry.relation,
        reference=PREFILL,
        numerics=built.numerics,
        workload=entry.workload,
        sequences=part.sequences,
        generate=part.generate,
        temperature=None if attention else contract.numerics.temperatures[column],
        column=None if attention else column,
        covered=True,
    )
    tokens = built.known(entry.workload)
    clean = _clean(built, job, control, tokens)
    if clean.outcome != "holds" and clean.reason != SAME_STEPS:
        found = "does not apply" if clean.outcome == "void" else "void"
        return str(control.path), found, f"with nothing planted: {clean.outcome}: {clean.reason}"
    planted = compare(built.setting, job, control, planting(control), tokens)
    caught = planted.outcome == control.expect
    return str(control.path), "caught" if caught else "not caught", planted.reason


def _clean(built: BuiltFixture, job: ControlRun, control: Control, tokens: Tokens) -> Comparison:
    key = (
        job.relation, job.workload, job.sequences, job.generate, job.column, control.path,
        control.scores_prompt,
    )  # fmt: skip
    if key not in built.clean:
        built.clean[key] = compare(built.setting, job, control, Planting(), tokens)
    return built.clean[key]


def _look_at_kernels(entry: Entry, built: BuiltFixture) -> tuple[str, str, str]:
    setting, relation = built.setting, kernel_relation(entry.relation)
    kernels = Kernels(setting.contract, Path(), lambda: setting.subject)
    where = {"keys": ORDER_KEYS} if relation.sees_order else {"architecture": AUDITED}
    case = KernelCase("matrix", entry.relation, entry.relation, built.numerics, **where)
    parts = PROBED.get(entry.control, EDGES) if relation.sees_order else ()
    key = (entry.relation, *parts)

    def look(subject: Subject) -> Comparison:
        if not relation.sees_order:
            return relation.look(kernels, case)
        return certify(subject, case, seed=setting.contract.seed, only=parts)

    if in_kernels(CONTROLS[entry.control]):
        found = relation.control(kernels, KernelControl(entry.control, case))
        was_caught, seen = found.caught, found.seen
    else:
        planted = look(PLANTS[entry.control](setting.subject))
        was_caught, seen = caught(planted), planted.reason
    if key not in built.clean:
        built.clean[key] = look(setting.subject)
    clean = built.clean[key]
    if clean.outcome != "holds":
        return "decode", "void", f"with nothing planted: {clean.outcome}: {clean.reason}"
    return "decode", "caught" if was_caught else "not caught", seen

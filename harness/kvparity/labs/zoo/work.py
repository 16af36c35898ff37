"""Compute cells: plant, look, and look at the same place with nothing planted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kvparity.controls.table import PLANTS, Planting, planting
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.labs.zoo.cells import PREFILL, Cell, part_of, seen_by
from kvparity.labs.zoo.habitats import HABITATS
from kvparity.plan.cases import ControlRun
from kvparity.plan.kernel_cases import KernelCase, KernelControl, Numerics
from kvparity.record.execute import Tokens
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.kernel_case import Finding, audit, certify
from kvparity.run.control_run import compare
from kvparity.run.kernel_control_run import (
    EDGES,
    PROBED,
    SEEN,
    run_audit_control,
    run_order_control,
)
from kvparity.run.unit import Runner, Setting
from kvparity.subjects.registry import factory
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.paths import PathName
from kvparity_contracts.planning import in_kernels

SAME_STEPS = "both sides ran the same steps"
ORDER_KEYS = 40
"""Keys of an order check: past a split, and past another tile."""
AUDITED = "sm_90"


@dataclass
class _Place:
    """A habitat in this process: its subject, the tokens of its workloads, the clean outcomes."""

    setting: Setting
    numerics: Numerics
    tokens: dict[str, Tokens] = field(default_factory=dict)
    clean: dict[tuple[Any, ...], Comparison | Finding] = field(default_factory=dict)

    def known(self, workload: str) -> Tokens:
        if workload not in self.tokens:
            runner = Runner(self.setting, self.setting.prompts(workload), None)
            runner.rollout(PathName("decode"))
            self.tokens[workload] = runner.known()
        return self.tokens[workload]


_places: dict[tuple[str, str], _Place] = {}


def _place(habitat: str, device: str) -> _Place:
    if (habitat, device) not in _places:
        contract = HABITATS[habitat].contract
        numerics = Numerics(*contract.numerics.formats()[0])
        subject = factory(contract.subject.kind)(
            contract.subject,
            execution=numerics.execution,
            kv_cache=numerics.kv_cache,
            device=torch.device(device),
            seed=contract.seed,
            base=Path(),
        )
        _places[habitat, device] = _Place(Setting(contract, subject), numerics)
    return _places[habitat, device]


def compute(cells: list[Cell], device: str) -> list[dict[str, Any]]:
    """The entries of some cells, in their order."""
    return [_entry(cell, device) for cell in cells]


def _entry(cell: Cell, device: str) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        path, found, seen = _look(cell, device)
    except UnsupportedError as error:
        path, found, seen = "", "does not apply", str(error)
    except SubjectError as error:  # planted, a defect may end a run; that is seen
        path, found, seen = "", "caught", f"the run ended: {error}"
    return {
        "control": cell.control,
        "habitat": cell.habitat,
        "workload": cell.workload or None,
        "relation": cell.relation,
        "path": path,
        "found": found,
        "seen": seen,
        "seconds": round(time.perf_counter() - start, 2),
    }


def _look(cell: Cell, device: str) -> tuple[str, str, str]:
    if cell.relation in ("order", "audit"):
        return _look_at_kernels(cell, _place(cell.habitat, device))
    control = seen_by(CONTROLS[cell.control], cell.relation)
    part = part_of(CONTROLS[cell.control], HABITATS[cell.habitat], cell.workload)
    assert control is not None  # or it would be no cell
    assert part is not None
    place = _place(cell.habitat, device)
    contract = place.setting.contract
    check = next(each for each in contract.checks if each.relation == cell.relation)
    attention = contract.subject.kind == "attention"
    column = int(control.tempered)
    job = ControlRun(
        control=control.name,
        check=check.name,
        relation=cell.relation,
        reference=PREFILL,
        numerics=place.numerics,
        workload=cell.workload,
        sequences=part.sequences,
        generate=part.generate,
        temperature=None if attention else contract.numerics.temperatures[column],
        column=None if attention else column,
        covered=True,
    )
    tokens = place.known(cell.workload)
    clean = _clean(place, job, control, tokens)
    if clean.outcome != "holds" and clean.reason != SAME_STEPS:
        found = "does not apply" if clean.outcome == "void" else "void"
        return str(control.path), found, f"with nothing planted: {clean.outcome}: {clean.reason}"
    planted = compare(place.setting, job, control, planting(control), tokens)
    wanted = control.expect if cell.relation == "invariance" else "differs"
    caught = planted.outcome == wanted
    return str(control.path), "caught" if caught else "not caught", planted.reason


def _clean(
    place: _Place, job: ControlRun, control: Control, tokens: Tokens
) -> Comparison | Finding:
    key = (
        job.relation, job.workload, job.sequences, job.generate, job.column, control.path,
        control.scores_prompt,
    )  # fmt: skip
    if key not in place.clean:
        place.clean[key] = compare(place.setting, job, control, Planting(), tokens)
    return place.clean[key]


def _look_at_kernels(cell: Cell, place: _Place) -> tuple[str, str, str]:
    contract, subject = place.setting.contract, place.setting.subject
    key: tuple[str, ...]
    if cell.relation == "audit":
        case = KernelCase("zoo", "audit", "audit", place.numerics, architecture=AUDITED)
        key = ("audit",)
        if key not in place.clean:
            place.clean[key] = audit(contract, Path(), case)
        clean = place.clean[key]
        caught, seen = run_audit_control(contract, Path(), KernelControl(cell.control, case))
    else:
        case = KernelCase("zoo", "order", "order", place.numerics, keys=ORDER_KEYS)
        parts = PROBED.get(cell.control, EDGES)
        if in_kernels(CONTROLS[cell.control]):
            job = KernelControl(cell.control, case)
            caught, seen = run_order_control(subject, job, contract.seed)
        else:
            planted = PLANTS[cell.control](subject)
            found = certify(planted, case, seed=contract.seed, only=parts)
            caught = found.outcome == "differs" and found.details["verdict"] in SEEN
            seen = found.reason
        key = ("order", *parts)
        if key not in place.clean:
            place.clean[key] = certify(subject, case, seed=contract.seed, only=parts)
        clean = place.clean[key]
    if clean.outcome != "holds":
        return "decode", "void", f"with nothing planted: {clean.outcome}: {clean.reason}"
    return "decode", "caught" if caught else "not caught", seen

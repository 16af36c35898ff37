"""A case in words, and cases and controls as lines of evidence."""

from __future__ import annotations

from dataclasses import asdict, fields

from kvparity.plan.cases import Case, ControlRun
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.planted import Formats
from kvparity.plan.results import CaseLine, ControlLine, SideName
from kvparity.relations.asked import Planted
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.registry import RELATIONS, kernel_relation
from kvparity_contracts.controls import CONTROLS

ORACLE = "float64"
"""The name of the side that an accuracy check compares a path with."""


def case_words(case: Case) -> str:
    """What a case looks at."""
    against = "" if case.reference is None else f" against {case.reference}"
    what = f"{case.relation} of {case.path}{against} over {case.workload}"
    return f"case {case.id}: {what} in {case.numerics.execution}"


def case_line(case: Case, result: Comparison, evidence: str | None = None) -> CaseLine:
    """What one case showed; ``evidence``: the file of what was compared."""
    rollout, trainer = _roles(case, result.rollout)
    places: dict[str, object] = {
        "workload": case.workload,
        "reference": None if case.reference is None else str(case.reference),
        "path": str(case.path),
        "temperature": case.temperature,
        "rollout": rollout,
        "trainer": trainer,
    }
    return _line(case, result, places, {} if evidence is None else {"evidence": evidence})


def kernel_line(case: KernelCase, found: Comparison) -> CaseLine:
    """What one case of a check of kernels showed."""
    alone: dict[str, object] = dict.fromkeys(("workload", "temperature", "rollout", "trainer"))
    reference, path = kernel_relation(case.relation).sides
    return _line(case, found, alone | {"reference": reference, "path": path}, {})


def _line(
    case: Case | KernelCase,
    result: Comparison,
    places: dict[str, object],
    more: dict[str, object],
) -> CaseLine:
    found = {each.name: getattr(result, each.name) for each in fields(result)} | places
    found["verdict"] = found.pop("outcome")
    if found["of"] is None:  # what is not set is not written
        del found["of"]
    if (details := found.pop("details")) is not None:
        found[case.relation] = details
    head = {
        "id": case.id,
        "check": case.check,
        "relation": case.relation,
        "dtype": case.numerics.execution,
        "kv_cache": case.numerics.kv_cache,
        "device": case.numerics.device,
    }
    return RELATIONS[case.relation].line.model_validate(head | found | more)


def _roles(case: Case, rollout: SideName | None) -> tuple[str | None, str | None]:
    """(rollout, trainer) by name; of nothing where no logprob was compared."""
    if rollout is None:
        return None, None
    path, reference = str(case.path), ORACLE if case.reference is None else str(case.reference)
    return (reference, path) if rollout == "reference" else (path, reference)


def control_line(job: ControlRun | KernelControl, planted: Planted) -> ControlLine:
    """What one control showed."""
    found = {"name": job.control, "relation": job.relation} | vars(planted) | planned_of(job)
    if isinstance(job, KernelControl):
        del found["reach"]  # which only a control of accuracy has
    return ControlLine.model_validate(found)


def planned_of(job: ControlRun | KernelControl) -> dict[str, object]:
    """The fields of a control's line that its plan decides."""
    fact = CONTROLS[job.control]
    place = job.case if isinstance(job, KernelControl) else job
    return {
        "by": place.check,
        "workload": place.workload if isinstance(place, ControlRun) else None,
        "path": "trainer" if fact.side == "sides" else str(fact.path),
        "numerics": Formats(**asdict(place.numerics)),
        "expected": fact.expect,
    }

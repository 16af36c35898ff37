"""A case in words, and as a line of evidence."""

from __future__ import annotations

from dataclasses import fields

from kvparity.plan.cases import Case
from kvparity.plan.kernel_cases import KernelCase
from kvparity.plan.results import CaseLine, SideName
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.registry import RELATIONS

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
    return _line(case, found, alone | {"reference": "prefill", "path": "decode"}, {})


def _line(
    case: Case | KernelCase,
    result: Comparison,
    places: dict[str, object],
    more: dict[str, object],
) -> CaseLine:
    found = {each.name: getattr(result, each.name) for each in fields(result)} | places
    found["verdict"] = found.pop("outcome")
    if details := found.pop("details"):
        found[case.relation] = dict(details)
    head = {
        "id": case.id,
        "check": case.check,
        "relation": case.relation,
        "dtype": case.numerics.execution,
        "kv_cache": case.numerics.kv_cache,
    }
    return RELATIONS[case.relation].line.model_validate(head | found | more)


def _roles(case: Case, rollout: SideName | None) -> tuple[str | None, str | None]:
    """(rollout, trainer) by name; of nothing where no logprob was compared."""
    if rollout is None:
        return None, None
    path, reference = str(case.path), ORACLE if case.reference is None else str(case.reference)
    return (reference, path) if rollout == "reference" else (path, reference)

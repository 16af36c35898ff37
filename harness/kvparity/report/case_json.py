"""A case in words, and as a line of evidence."""

from __future__ import annotations

from typing import Any

from kvparity.plan.cases import Case
from kvparity.relations.bits_and_limits import Comparison, SideName

ORACLE = "float64"
"""The name of the side that an accuracy check compares a path with."""


def case_words(case: Case) -> str:
    """What a case looks at."""
    against = "" if case.reference is None else f" against {case.reference}"
    what = f"{case.relation} of {case.path}{against} over {case.workload}"
    return f"case {case.id}: {what} in {case.numerics.execution}"


def case_json(case: Case, result: Comparison) -> dict[str, Any]:
    """The report's entry for one case."""
    found = result.as_json()
    outcome = found.pop("outcome")
    rollout, trainer = _roles(case, found.pop("rollout"))
    more = {case.relation: dict(result.details)} if result.details else {}
    return {
        "id": case.id,
        "check": case.check,
        "relation": case.relation,
        "workload": case.workload,
        "reference": None if case.reference is None else str(case.reference),
        "path": str(case.path),
        "dtype": case.numerics.execution,
        "kv_cache": case.numerics.kv_cache,
        "temperature": case.temperature,
        "rollout": rollout,
        "trainer": trainer,
        "verdict": outcome,
        **found,
        **more,
    }


def _roles(case: Case, rollout: SideName | None) -> tuple[str | None, str | None]:
    """(rollout, trainer) by name; of nothing where no logprob was compared."""
    if rollout is None:
        return None, None
    path, reference = str(case.path), ORACLE if case.reference is None else str(case.reference)
    return (reference, path) if rollout == "reference" else (path, reference)

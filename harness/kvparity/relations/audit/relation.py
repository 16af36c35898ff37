"""How compiled kernels are audited for a check, controlled and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from kvparity.controls.table import RECOMPILED
from kvparity.core.errors import SubjectError
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import CaseLine, Outcome
from kvparity.relations.asked import Kernels, Planted
from kvparity.relations.audit.compare import KernelComparison, worst
from kvparity.relations.audit.contract import audit_contract
from kvparity.relations.audit.line import AuditCase, AuditDetails, agrees
from kvparity.relations.audit.request import AuditError
from kvparity.relations.base import KernelRelation
from kvparity.relations.bits_and_limits import Comparison
from kvparity_contracts.checks import AuditCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.subjects import order_of
from kvparity_kernels.order import ReductionOrder


class AuditRelation(KernelRelation):
    """What the compiler made of decode decides the order as what it made of prefill."""

    check = AuditCheck
    line = AuditCase
    holds = "no difference of compiled code was found"

    def place(self, case: CaseLine) -> str:
        """For which GPU."""
        assert isinstance(case.details, AuditDetails)
        return case.details.architecture

    def words(self, case: KernelCase) -> str:
        """For which GPU."""
        return f"audit for {case.architecture}"

    def look(self, kernels: Kernels, case: KernelCase) -> Comparison:
        """Compile and compare."""
        return audit(kernels.contract, kernels.base, case)

    def control(self, kernels: Kernels, job: KernelControl) -> Planted:
        """Compile decode in another order than prefill."""
        declared = order_of(kernels.contract.subject)
        if self.name not in CONTROLS[job.control].relations or declared is None:
            raise ValueError(f"{job.control} is not a control of an audit check")
        other = RECOMPILED[job.control](ReductionOrder(**declared.model_dump()))
        found = audit(kernels.contract, kernels.base, job.case, against=asdict(other))
        return Planted(found.outcome == "differs", f"{job.case.architecture}: {found.reason}")


def audit(
    contract: Contract,
    base: Path,
    case: KernelCase,
    against: Mapping[str, int] | None = None,
) -> Comparison:
    """Compile decode and prefill for the case's architecture and compare what decides the order.

    ``against``: changes of decode's order alone. Raises ``SubjectError`` if a kernel does not
    compile, ``UnsupportedError`` if the audit does not know the kernels.
    """
    formats = [(case.numerics.execution, case.numerics.kv_cache)]
    try:
        results = audit_contract(
            contract, base, [case.architecture], formats=formats, against=against
        )
    except AuditError as error:
        raise SubjectError(f"audit for {case.architecture}: {error}") from error
    found = [result.comparison for result in results]
    verdict = worst(pair.verdict for pair in found)
    by_model = _by_model(contract, case)
    details = AuditDetails.model_validate(
        {
            "architecture": case.architecture,
            "verdict": verdict,
            "by_model": by_model,
            "pairs": [result.as_json() for result in results],
        }
    )
    deciding = next(pair for pair in found if pair.verdict == verdict)
    outcome: Outcome = "differs" if verdict == "different" else "void"
    if agrees(verdict, by_model):
        outcome = "holds"
    if verdict == "same":
        count = len(deciding.fields)
        words = f"same: all {count} fields of {len(found)} pairs agree"
    else:
        words = f"{verdict}: {deciding.left} and {deciding.right}: {_fields(deciding)}"
    if verdict == "equal by model":
        words += f" ({deciding.deciding[0].note})"
        words += "" if outcome == "holds" else "; the check does not say by_model: accepted"
    return Comparison(outcome, words, details=details)


def _by_model(contract: Contract, case: KernelCase) -> str:
    """What the check of a case says of kernels that are equal by model."""
    own = (each for each in contract.checks if each.name == case.check)
    return next((each.by_model for each in own if isinstance(each, AuditCheck)), "void")


def _fields(pair: KernelComparison) -> str:
    """The fields that decide, with both sides where that is short."""
    return "; ".join(
        f"{each.name} ({each.left} | {each.right})"
        if len(each.left) + len(each.right) < 60
        else each.name
        for each in pair.deciding
    )

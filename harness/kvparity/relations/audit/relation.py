"""How compiled kernels are audited for a check, controlled and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from kvparity.controls.table import ELSEWHERE, RECOMPILED
from kvparity.core.errors import SubjectError
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import CaseLine, Outcome
from kvparity.relations.asked import Kernels, Planted
from kvparity.relations.audit.compare import KernelComparison, worst
from kvparity.relations.audit.contract import Result, audit_contract
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
    holds = "nothing was found that decides another order"

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
        """Compile decode in another order than prefill, or for another architecture."""
        declared = order_of(kernels.contract.subject)
        if self.name not in CONTROLS[job.control].relations or declared is None:
            raise ValueError(f"{job.control} is not a control of an audit check")
        contract, base, case = kernels.contract, kernels.base, job.case
        if (elsewhere := ELSEWHERE.get(job.control)) is not None:
            results = _compiled(contract, base, case, None, elsewhere)
            found = _told(contract, case, results)
            # That it was built for another one is what is planted, and not what must be seen.
            seen = bool(_deciding(results) - {"built for"})
        else:
            other = RECOMPILED[job.control](ReductionOrder(**declared.model_dump()))
            found, seen = audit(contract, base, case, against=asdict(other)), True
        caught = found.outcome == "differs" and seen
        return Planted(caught, f"{case.architecture}: {found.reason}")


def _deciding(results: Sequence[Result]) -> set[str]:
    """The fields that make the verdict of some pair."""
    return {field.name for each in results for field in each.comparison.deciding}


def audit(
    contract: Contract,
    base: Path,
    case: KernelCase,
    against: Mapping[str, int] | None = None,
) -> Comparison:
    """Compile decode and prefill for the case's architecture and compare what decides the order.

    ``against``: changes of decode's order alone; None: the tiles that the check gives it. Raises
    ``SubjectError`` if a kernel does not compile, ``UnsupportedError`` if the audit does not know
    the kernels.
    """
    return _told(contract, case, _compiled(contract, base, case, against))


def _compiled(
    contract: Contract,
    base: Path,
    case: KernelCase,
    against: Mapping[str, int] | None,
    elsewhere: Mapping[str, str] | None = None,
) -> list[Result]:
    formats = [(case.numerics.execution, case.numerics.kv_cache)]
    check = _check(contract, case)
    if against is None and check is not None and check.decode is not None:
        against = check.decode.model_dump()
    try:
        return audit_contract(
            contract,
            base,
            [case.architecture],
            formats=formats,
            against=against,
            elsewhere=elsewhere,
        )
    except AuditError as error:
        raise SubjectError(f"audit for {case.architecture}: {error}") from error


def _told(contract: Contract, case: KernelCase, results: Sequence[Result]) -> Comparison:
    """What a case is where its kernels compare so."""
    check = _check(contract, case)
    verdict = worst(each.comparison.verdict for each in results)
    by_model = "void" if check is None else check.by_model
    details = AuditDetails.model_validate(
        {
            "architecture": case.architecture,
            "verdict": verdict,
            "by_model": by_model,
            "pairs": [result.as_json() for result in results],
        }
    )
    deciding = next(each for each in results if each.comparison.verdict == verdict)
    outcome: Outcome = "differs" if verdict == "different" else "void"
    if agrees(verdict, by_model):
        outcome = "holds"
    words = _words(deciding, len(results))
    if verdict == "equal by model" and outcome != "holds":
        words += "; the check does not say by_model: accepted"
    return Comparison(outcome, words, details=details)


def _check(contract: Contract, case: KernelCase) -> AuditCheck | None:
    own = (each for each in contract.checks if each.name == case.check)
    return next((each for each in own if isinstance(each, AuditCheck)), None)


def _words(result: Result, pairs: int) -> str:
    """The verdict of a pair, and on what it rests."""
    pair = result.comparison
    changes = f", decode with {result.changes}" if result.changes else ""
    if pair.verdict == "same":
        return f"same: all {len(pair.fields)} fields of {pairs} pairs agree{changes}"
    words = f"{pair.verdict}: {pair.left} and {pair.right}: {_fields(pair)}{changes}"
    notes = [each.note for each in pair.deciding if each.name == "matrix instruction" and each.note]
    return words + "".join(f" ({note})" for note in notes)


def _fields(pair: KernelComparison) -> str:
    """The fields that decide, with both sides where that is short."""
    return "; ".join(
        f"{each.name} ({each.left} | {each.right})"
        if len(each.left) + len(each.right) < 60
        else each.name
        for each in pair.deciding
    )

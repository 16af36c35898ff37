"""One case that looks at the kernels themselves: an order certificate, or an audit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvparity.core.errors import SubjectError
from kvparity.plan.kernel_cases import KernelCase
from kvparity.plan.results import Outcome
from kvparity.relations.audit.compare import VERDICTS
from kvparity.relations.audit.contract import audit_contract
from kvparity.relations.audit.request import AuditError
from kvparity.subjects.base import Subject
from kvparity_contracts.contract import Contract

if TYPE_CHECKING:
    from kvparity.relations.order.report import OrderReport

_RANK: tuple[Outcome, ...] = ("differs", "void", "holds")  # the worst first


@dataclass(frozen=True)
class Finding:
    """What one case showed; ``details`` are those of its relation, as JSON values."""

    outcome: Outcome
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


def certify(
    subject: Subject,
    case: KernelCase,
    *,
    seed: int,
    only: Collection[str] | None = None,
    draws: int = 8,
) -> Finding:
    """Recover decode's order at the case's keys and certify it on the last row of prefill.

    Of a decoder whose layers are of two kinds, both are looked at, and the worse one counts.
    ``only``: these parts of the order alone (default: all five). ``draws``: random calls.
    """
    from kvparity.relations.order.decoder import attentions_of
    from kvparity.relations.order.examine import order_report
    from kvparity.relations.order.report import PARTS
    from kvparity_kernels.launch import record

    found: dict[str, Finding] = {}
    for kind, pair in attentions_of(subject).items():
        with record() as log:
            report = order_report(pair, case.keys, seed=seed, only=only or PARTS, draws=draws)
        found[kind] = of_order(report, log.kernels)
    return _worst(found)


def _worst(found: Mapping[str, Finding]) -> Finding:
    """What the kinds of layers show together; ``layers`` has the details of each."""
    if len(found) == 1:
        return next(iter(found.values()))
    ranked = sorted(found.values(), key=lambda each: _RANK.index(each.outcome))
    reason = "; ".join(
        f"{kind}: {each.reason}"
        for kind, each in found.items()
        if each.outcome == ranked[0].outcome
    )
    layers = {kind: dict(each.details) for kind, each in found.items()}
    return Finding(ranked[0].outcome, reason, {**ranked[0].details, "layers": layers})


def of_order(report: OrderReport, kernels: Mapping[str, Any]) -> Finding:
    """What an order report means for its check."""
    details = {**report.json(), "kernels": dict(kernels)}
    words = f"{report.verdict}: {report.reason}"
    if report.verdict in ("different-order", "undeclared-order", "same-order-different-bits"):
        return Finding("differs", words, details)
    if report.verdict == "not-a-tree":
        drawn = report.drawn
        if drawn.equal < drawn.calls:
            unlike = f"; {drawn.calls - drawn.equal} of {drawn.calls} random calls differ"
            return Finding("differs", words + unlike, details)
        return Finding(
            "void", f"{words}; the random calls agree, which alone shows no order", details
        )
    if "key order" not in {part.name for part in report.parts if part.status == "same"}:
        return Finding("void", f"the order of the keys was not measured; {words}", details)
    return Finding("holds", words, details)


def audit(
    contract: Contract,
    base: Path,
    case: KernelCase,
    against: Mapping[str, int] | None = None,
) -> Finding:
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
    pairs = [result.as_json() for result in results]
    verdict = next(word for word in VERDICTS if word in {pair["verdict"] for pair in pairs})
    details = {"architecture": case.architecture, "verdict": verdict, "pairs": pairs}
    deciding = next(pair for pair in pairs if pair["verdict"] == verdict)
    if verdict == "same":
        count = len(deciding["fields"])
        return Finding("holds", f"same: all {count} fields of {len(pairs)} pairs agree", details)
    words = f"{verdict}: {deciding['left']} and {deciding['right']}: {_fields(deciding)}"
    return Finding("void" if verdict == "unknown" else "differs", words, details)


def _fields(pair: Mapping[str, Any]) -> str:
    """The fields that decide, with both sides where that is short."""
    found = [each for each in pair["fields"] if each["name"] in pair["deciding"]]
    return "; ".join(
        f"{each['name']} ({each['left']} | {each['right']})"
        if len(each["left"]) + len(each["right"]) < 60
        else each["name"]
        for each in found
    )

"""How orders are probed for a check, controlled and told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from kvparity.controls.table import PLANTS
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import CaseLine, Outcome
from kvparity.relations.asked import Kernels, Planted
from kvparity.relations.base import KernelRelation
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.order.line import OrderCase, OrderDetails
from kvparity.subjects.base import Subject
from kvparity_contracts.checks import OrderCheck
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.json_types import JsonObject

if TYPE_CHECKING:
    from kvparity.relations.order.report import OrderReport

_RANK: tuple[Outcome, ...] = ("differs", "void", "holds")  # the worst first
SEEN = ("different-order", "undeclared-order", "not-a-tree")
"""What catches a control of an order check. Other bits alone would show that probing is blind."""
EDGES = ("key order", "rescale edges")
"""What is probed of an order, where a row of ``PROBED`` does not say less."""
PROBED: dict[str, tuple[str, ...]] = {"ragged-split": ("key order",)}


class OrderRelation(KernelRelation):
    """Decode adds in the order of prefill, as far as probes show."""

    check = OrderCheck
    line = OrderCase
    holds = "no difference of order was found"
    sees_order = True

    def place(self, case: CaseLine) -> str:
        """At how many keys."""
        return f"{_details(case).keys} keys"

    def words(self, case: KernelCase) -> str:
        """The order of so many keys."""
        return f"order of {case.keys} keys in {case.numerics.execution}"

    def look(self, kernels: Kernels, case: KernelCase) -> Comparison:
        """Probe and certify."""
        return certify(kernels.subject(), case, seed=kernels.contract.seed)

    def control(self, kernels: Kernels, job: KernelControl) -> Planted:
        """Plant another order in the kernels that are probed.

        Raises:
            UnsupportedError: it cannot be planted in this subject.
        """
        if self.name not in CONTROLS[job.control].relations:
            raise ValueError(f"{job.control} is not a control of an order check")
        subject = PLANTS[job.control](kernels.subject())
        parts = PROBED.get(job.control, EDGES)
        found = certify(subject, job.case, seed=kernels.contract.seed, only=parts, draws=2)
        return Planted(caught(found), f"{job.case.keys} keys: {found.reason}")


def caught(found: Comparison) -> bool:
    """Whether a planted order was seen as one."""
    verdict = found.details.verdict if isinstance(found.details, OrderDetails) else None
    return found.outcome == "differs" and verdict in SEEN


def certify(
    subject: Subject,
    case: KernelCase,
    *,
    seed: int,
    only: Collection[str] | None = None,
    draws: int = 8,
) -> Comparison:
    """Recover decode's order at the case's keys and certify it on the last row of prefill.

    Of a decoder whose layers are of two kinds, both are looked at, and the worse one counts.
    ``only``: these parts of the order alone (default: all five). ``draws``: random calls.
    """
    from kvparity.relations.order.decoder import attentions_of
    from kvparity.relations.order.examine import order_report
    from kvparity.relations.order.report import PARTS
    from kvparity_kernels.launch import record

    found: dict[str, Comparison] = {}
    for kind, pair in attentions_of(subject).items():
        with record() as log:
            report = order_report(pair, case.keys, seed=seed, only=only or PARTS, draws=draws)
        found[kind] = of_order(report, log.kernels)
    return _worst(found)


def _worst(found: Mapping[str, Comparison]) -> Comparison:
    """What the kinds of layers show together; ``layers`` has the details of each."""
    if len(found) == 1:
        return next(iter(found.values()))
    ranked = sorted(found.values(), key=lambda each: _RANK.index(each.outcome))
    reason = "; ".join(
        f"{kind}: {each.reason}"
        for kind, each in found.items()
        if each.outcome == ranked[0].outcome
    )
    layers = {kind: _details(each).document() for kind, each in found.items()}
    worst = _details(ranked[0]).model_copy(update={"layers": layers})
    return Comparison(ranked[0].outcome, reason, details=worst)


def _details(found: Comparison | CaseLine) -> OrderDetails:
    assert isinstance(found.details, OrderDetails)
    return found.details


def of_order(report: OrderReport, kernels: JsonObject) -> Comparison:
    """What an order report means for its check."""
    details = OrderDetails.model_validate({**report.json(), "kernels": dict(kernels)})
    words = f"{report.verdict}: {report.reason}"
    if report.verdict in ("different-order", "undeclared-order", "same-order-different-bits"):
        return Comparison("differs", words, details=details)
    if report.verdict == "not-a-tree":
        drawn = report.drawn
        if drawn.equal < drawn.calls:
            unlike = f"; {drawn.calls - drawn.equal} of {drawn.calls} random calls differ"
            return Comparison("differs", words + unlike, details=details)
        return Comparison(
            "void", f"{words}; the random calls agree, which alone shows no order", details=details
        )
    if "key order" not in {part.name for part in report.parts if part.status == "same"}:
        words = f"the order of the keys was not measured; {words}"
        return Comparison("void", words, details=details)
    return Comparison("holds", words, details=details)

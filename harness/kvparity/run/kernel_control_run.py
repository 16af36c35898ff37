"""Controls of order and audit checks: orders planted in decode alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from kvparity.controls.table import PLANTS, RECOMPILED
from kvparity.plan.kernel_cases import KernelControl
from kvparity.plan.results import ControlLine, Formats
from kvparity.relations.kernel_case import audit, certify
from kvparity.subjects.base import Subject
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.subjects import order_of
from kvparity_kernels.order import ReductionOrder

SEEN = ("different-order", "undeclared-order", "not-a-tree")
"""What catches a control of an order check. Other bits alone would show that probing is blind."""


EDGES = ("key order", "rescale edges")
"""What is probed of an order, where a row of ``PROBED`` does not say less."""
PROBED: dict[str, tuple[str, ...]] = {"ragged-split": ("key order",)}


def run_order_control(subject: Subject, job: KernelControl, seed: int) -> tuple[bool, str]:
    """Plant one control in the kernels that are probed: (caught, what was seen).

    Raises:
        UnsupportedError: it cannot be planted in this subject.
    """
    if "order" not in CONTROLS[job.control].relations:
        raise ValueError(f"{job.control} is not a control of an order check")
    planted, parts = PLANTS[job.control](subject), PROBED.get(job.control, EDGES)
    found = certify(planted, job.case, seed=seed, only=parts, draws=2)
    caught = found.outcome == "differs" and found.details["verdict"] in SEEN
    return caught, f"{job.case.keys} keys: {found.reason}"


def run_audit_control(contract: Contract, base: Path, job: KernelControl) -> tuple[bool, str]:
    """Compile decode in another order than prefill: (caught, what was seen)."""
    declared = order_of(contract.subject)
    if "audit" not in CONTROLS[job.control].relations or declared is None:
        raise ValueError(f"{job.control} is not a control of an audit check")
    order = ReductionOrder(**declared.model_dump())
    other = RECOMPILED[job.control](order)
    found = audit(contract, base, job.case, against=asdict(other))
    return found.outcome == "differs", f"{job.case.architecture}: {found.reason}"


def kernel_control_line(job: KernelControl, caught: bool, seen: str) -> ControlLine:
    """The line of one control."""
    return ControlLine(
        name=job.control,
        relation=job.relation,
        caught=caught,
        by=job.case.check,
        seen=seen,
        measured={},
        workload=None,
        path="decode",
        expected="differs",
        numerics=Formats(**asdict(job.case.numerics)),
    )

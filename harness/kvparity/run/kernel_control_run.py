"""Controls of order and audit checks: orders planted in decode alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvparity.controls.base import Plant
from kvparity.controls.order import other_tile, ragged_split, retiled
from kvparity.plan.kernel_cases import KernelControl
from kvparity.relations.kernel_case import audit, certify
from kvparity.subjects.base import Subject
from kvparity_contracts.contract import Contract
from kvparity_contracts.subjects import order_of
from kvparity_kernels.order import ReductionOrder

SEEN = ("different-order", "undeclared-order", "not-a-tree")
"""What catches a control of an order check. Other bits alone would show that probing is blind."""


@dataclass(frozen=True)
class PlantedOrder:
    """``plant`` changes the subject that is probed, and shows in ``parts`` of its order.

    ``against``: the changes of decode's order that the audit compiles.
    """

    name: str
    plant: Plant | None = None
    parts: tuple[str, ...] = ()
    against: Callable[[ReductionOrder], dict[str, int]] | None = None

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it is planted for."""
        given = {"order": self.plant, "audit": self.against}
        return tuple(name for name, value in given.items() if value is not None)


def _tile(order: ReductionOrder) -> dict[str, int]:
    other = retiled(order)
    return {"tile": other.tile, "split": other.split}


def _warps(order: ReductionOrder) -> dict[str, int]:
    return {"num_warps": 4 if order.num_warps == 8 else 8}


_ALL = (
    PlantedOrder(
        "other-tile", plant=other_tile, parts=("key order", "rescale edges"), against=_tile
    ),
    PlantedOrder("ragged-split", plant=ragged_split, parts=("key order",)),
    PlantedOrder("other-warps", against=_warps),
)
KERNEL_CONTROLS: dict[str, PlantedOrder] = {each.name: each for each in _ALL}


def run_order_control(subject: Subject, job: KernelControl, seed: int) -> tuple[bool, str]:
    """Plant one control in the kernels that are probed: (caught, what was seen).

    Raises:
        UnsupportedError: it cannot be planted in this subject.
    """
    control = KERNEL_CONTROLS[job.control]
    if control.plant is None:
        raise ValueError(f"{job.control} is not a control of an order check")
    planted = control.plant(subject)
    found = certify(planted, job.case, seed=seed, only=control.parts, draws=2)
    caught = found.outcome == "differs" and found.details["verdict"] in SEEN
    return caught, f"{job.case.keys} keys: {found.reason}"


def run_audit_control(contract: Contract, base: Path, job: KernelControl) -> tuple[bool, str]:
    """Compile decode in another order than prefill: (caught, what was seen)."""
    control = KERNEL_CONTROLS[job.control]
    declared = order_of(contract.subject)
    if control.against is None or declared is None:
        raise ValueError(f"{job.control} is not a control of an audit check")
    order = ReductionOrder(**declared.model_dump())
    found = audit(contract, base, job.case, against=control.against(order))
    return found.outcome == "differs", f"{job.case.architecture}: {found.reason}"


def kernel_control_json(job: KernelControl, caught: bool, seen: str) -> dict[str, Any]:
    """The report's entry for one control."""
    return {
        "name": job.control,
        "relation": job.relation,
        "caught": caught,
        "by": job.case.check,
        "seen": seen,
        "measured": {},
        "workload": None,
        "path": "decode",
        "expected": "differs",
        "numerics": asdict(job.case.numerics),
    }

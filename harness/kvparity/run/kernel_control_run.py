"""The report's entry for a control that is planted in kernels."""

from __future__ import annotations

from dataclasses import asdict

from kvparity.plan.kernel_cases import KernelControl
from kvparity.plan.results import ControlLine, Formats


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

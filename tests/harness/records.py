"""Records of a run that nobody computed: two sequences, five compared tokens, two temperatures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Plan, Span
from kvparity.record.execute import Record
from kvparity_kernels.launch import LaunchLog

MEMBERS = (Member("w/0", 5, 2), Member("w/1", 4, 2))
INDEX = ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2))
PREFILL = Plan(
    MEMBERS,
    ((Span(0, 0, 5, 1, rows_to=4),), (Span(1, 0, 4, 1, rows_to=3),)),
    Layout(),
)
DECODE = Plan(
    MEMBERS,
    (
        (Span(0, 0, 2, 1), Span(1, 0, 2, 1)),
        (Span(0, 2, 3, 2, decode=True), Span(1, 2, 3, 2, decode=True)),
        (Span(0, 3, 4, 3, decode=True),),
    ),
    Layout(),
)
VALUES = torch.tensor([[-1.0, -1.5], [-2.0, -2.5], [-0.0, -0.5], [-3.0, -3.5], [-4.0, -4.5]])
MINUS, PLUS = torch.tensor(-0.0), torch.tensor(0.0)
NAN = torch.tensor(torch.nan)
NOTHING: dict[str, Any] = {
    "index": (),
    "values": VALUES[:0],
    "targets": (),
    "digests": (),
}


def record(
    plan: Plan = PREFILL,
    *,
    values: Tensor = VALUES,
    targets: Sequence[int] = (10, 11, 12, 20, 21),
    digests: Sequence[int] = (1, 2, 3, -4, 5),
    index: tuple[tuple[int, int], ...] = INDEX,
    observed: dict[str, int] | None = None,
    launched: dict[str, int] | None = None,
) -> Record:
    asked = any(s.decode for step in plan.schedule for s in step)
    ran = {"attention.prefill": 2} | ({"attention.decode": 3} if asked else {})
    return Record(
        plan=plan,
        index=index,
        targets=torch.tensor(targets),
        values=values.clone(),
        digests=torch.tensor(digests),
        finite=torch.isfinite(values).all(-1),
        observed=Counter(ran if observed is None else observed),
        launches=LaunchLog(Counter(launched or {})),
    )


def changed(row: int, column: int, value: Tensor | float) -> Tensor:
    values = VALUES.clone()
    values[row, column] = value
    return values


def oracle(shift: float = 0.0) -> Tensor:
    """What float64 has: the record's values and a bit."""
    return VALUES.double() + shift

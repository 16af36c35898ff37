"""The cases of order and audit checks as lines: what only they have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kvparity.core.values import LIST, Count, Counts, Json, Texts
from kvparity.plan.results import CaseLine, Details


class OrderDetails(Details):
    """An order certificate, as `kvparity order --json` writes it, with the kernels that ran."""

    keys: Count
    prefill_rows: Count
    batch: Count
    verdict: Literal[
        "consistent",
        "different-order",
        "undeclared-order",
        "same-order-different-bits",
        "not-a-tree",
    ]
    reason: str
    subject: Json
    parts: Annotated[tuple[Json, ...], LIST]
    replay: Annotated[tuple[Json, ...], LIST]
    random_calls: Counts
    adder: str
    first_key: Count
    notes: Texts
    kernels: dict[str, Json]
    layers: dict[str, Json] = Field(default_factory=dict)
    """of a decoder with two kinds of layers, the certificate of each"""


class KernelCaseLine(CaseLine):
    """Decode's kernels against prefill's: its measures are null."""

    def document(self) -> Json:
        """``rollout`` stands behind the measures."""
        found = super().document()
        last = ("rollout", "first_divergence", self.relation)
        return found | {name: found.pop(name) for name in last if name in found}

    def why_not_differs(self) -> str | None:
        """An order may differ in what its random calls gave alone."""
        return None


class OrderCase(KernelCaseLine):
    """Decode's kernels against prefill's, by probing."""

    relation: Literal["order"]
    details: OrderDetails | None = Field(None, alias="order")

    def why_not_holds(self) -> str | None:
        """The order is found, and the same."""
        found = None if self.details is None else self.details.verdict
        return None if found == "consistent" else f"it holds, and the order is {found!r}"


class AuditDetails(Details):
    """Compiled kernels side by side, as `kvparity audit --json` writes them."""

    architecture: str
    """what they were compiled for"""
    verdict: Literal["same", "unknown", "different"]
    """the worst of the pairs"""
    pairs: Annotated[tuple[Json, ...], LIST]
    """each pair of kernels that was compared"""


class AuditCase(KernelCaseLine):
    """Decode's kernels against prefill's, as compiled."""

    relation: Literal["audit"]
    details: AuditDetails | None = Field(None, alias="audit")

    def why_not_holds(self) -> str | None:
        """What decides the order is the same."""
        found = None if self.details is None else self.details.verdict
        return None if found == "same" else f"it holds, and the audit found {found!r}"

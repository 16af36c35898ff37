"""A case of order as a line: what only it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from kvparity.core.values import LIST, Count, Counts, Json, Texts
from kvparity.plan.results import Details
from kvparity.relations.kernel_line import KernelCaseLine


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


class OrderCase(KernelCaseLine):
    """Decode's kernels against prefill's, by probing."""

    relation: Literal["order"]
    details: OrderDetails | None = Field(None, alias="order")
    """for an order check: `keys`, and the report of `kvparity order --json` for them (parts, trees,
    replay, random calls, the `first_key` that the row sees, `notes` on probes that used other
    numbers than the subject's own), with the `kernels` that were launched; for a decoder with two
    kinds of layer the worse report, and both in `layers`"""

    @property
    def kernels(self) -> Mapping[str, Json]:
        """Those that were probed."""
        return {} if self.details is None else self.details.kernels

    def why_not_holds(self) -> str | None:
        """The order is found, and the same."""
        found = None if self.details is None else self.details.verdict
        return None if found == "consistent" else f"it holds, and the order is {found!r}"

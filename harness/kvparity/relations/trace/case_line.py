"""A case of trace as a line: what only it has, and what its verdicts rest on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kvparity.core.values import LIST, Count, Counts, Number, Value
from kvparity.plan.results import CaseLine, Details


class BrokenInvariant(Value):
    """One invariant of a trace that one row breaks."""

    invariant: str
    """its name"""
    step: Count
    """of the schedule"""
    sequence: str
    """`workload/number`"""
    place: Count
    """position of the row"""
    layer: Count | None
    """null: of no layer alone"""
    sentence: str
    """what is wrong"""

    def __str__(self) -> str:
        layer = "" if self.layer is None else f", layer {self.layer}"
        return f"step {self.step}, {self.sequence} at position {self.place}{layer}: {self.sentence}"


class TraceDetails(Details):
    """What every layer looked at."""

    layers: Count
    """attention layers"""
    judged: Counts
    """by invariant, of how many rows and layers it was judged"""
    broken: Annotated[tuple[BrokenInvariant, ...], LIST]
    """the first that are broken"""
    weight_sum_ulps: Number | None
    """the largest distance of a sum of weights from 1, in float32 ulps; null without an LSE"""
    weight_sum_bound_ulps: Number | None
    """what rounding allows of it; null without an LSE"""
    largest_out_ratio: Number | None
    """the largest error of a result as a share of what rounding allows"""


class TraceCase(CaseLine):
    """What every layer looks at."""

    relation: Literal["trace"]
    details: TraceDetails | None = Field(None, alias="trace")
    """for a [trace](trace.md): number of `layers`; for how many rows and layers each invariant was
    `judged`; the first 8 `broken`; the sum of weights nearest to its bound and that bound, in
    float32 ulps (`weight_sum_ulps`, `weight_sum_bound_ulps`; null without an LSE); the largest
    error of a result as a share of what rounding allows (`largest_out_ratio`). `tokens` counts
    rows, `differing_tokens` those that break an invariant"""

    def why_not_holds(self) -> str | None:
        """No invariant is broken."""
        if self.details is not None and self.details.broken:
            return f"it holds, and broken is {[each.invariant for each in self.details.broken]!r}"
        return super().why_not_holds()

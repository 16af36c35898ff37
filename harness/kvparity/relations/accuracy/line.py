"""A case of accuracy as a line: what only it has, and what its verdicts rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from kvparity.core.values import Count, Finite, Number, Texts, Value
from kvparity.plan.results import CaseLine, Details


class Spot(Value):
    """One compared token of an accuracy case."""

    sequence: str
    """`workload/number`"""
    position: Count
    """of the token; of the query row for a kernel pair"""
    token: int | None
    """id of the token; null for a kernel pair"""
    column: Count
    """with the largest error: number of the temperature; for a kernel pair the element"""
    value: Number
    """the path's"""
    exact: Number
    """in float64"""
    error: Number
    """between them"""
    name: str | None = None
    """of the column, for a kernel pair"""


class AccuracyDetails(Details):
    """What an accuracy case measured, and where."""

    limits: dict[str, Finite]
    """its limits"""
    first: Spot | None
    """the first token over the limit of a token; if there is none, the first with any difference;
    null if no token has one"""
    worst: Spot | None
    """the token with the largest error; null if no token has one"""
    faults: Texts = ()
    """for a kernel pair, what was wrong with rows that belong to no sequence"""


class AccuracyCase(CaseLine):
    """A path against float64: limits."""

    relation: Literal["accuracy"]
    details: AccuracyDetails | None = Field(None, alias="accuracy")
    """for an accuracy case: its `limits`; the `first` token over the limit of a token (if there is
    none, the first with any difference) and the `worst`, each with `sequence`, `position` and
    `token` as in `first_divergence`, the `column` with the largest error (for a kernel pair with
    its `name`), its `value`, the `exact` value in float64 and the `error` between them; both null
    if no token has a difference"""

    @property
    def limits(self) -> Mapping[str, float] | None:
        """Those of its check."""
        return None if self.details is None else self.details.limits

    @property
    def faults(self) -> tuple[str, ...]:
        """Those of a pair."""
        return () if self.details is None else self.details.faults

    def _over(self) -> list[str]:
        """The measures that are missing, not finite, or over their limit."""
        limits = self.limits or {}
        found = {name: getattr(self, name, None) for name in limits}
        return [n for n, x in found.items() if not isinstance(x, float) or x > limits[n]]

    def why_not_holds(self) -> str | None:
        """Every measure is within its limit."""
        if not self.limits:
            return "it holds, and no measure is not within its limit"
        if self.faults:
            return f"it holds, and faults is {list(self.faults)!r}"
        if over := self._over():
            return f"it holds, and {', '.join(over)} is not within its limit"
        return super().why_not_holds()

    def why_not_differs(self) -> str | None:
        """A token, a row that belongs to no sequence or a measure is off."""
        seen = self.differing_tokens or self.differing_rows or self._over()
        return None if seen or self.faults else "it differs, and is within every limit"

"""Relation *invariance*: two paths of one subject, bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from kvparity.plan.results import CaseLine
from kvparity.relations.asked import Asked, RelationAnswer, Reruns
from kvparity.relations.base import KeptFile, PathRelation
from kvparity.relations.bits_and_limits import Comparison, InvarianceDetails, invariance
from kvparity.relations.explain import named
from kvparity_contracts.checks import Invariance
from kvparity_contracts.paths import PathName


class InvarianceCase(CaseLine):
    """Two paths of one subject: bits."""

    relation: Literal["invariance"]
    details: InvarianceDetails | None = Field(None, alias="invariance")
    """in the first case of a workload and its formats whose bits differ: `repeats`, for each side,
    by path, whether a rerun gave the same bits; `faults`: for a kernel pair (for accuracy too),
    what was wrong with rows that belong to no sequence"""

    @property
    def faults(self) -> tuple[str, ...]:
        """Those of a pair."""
        return () if self.details is None else self.details.faults

    @property
    def repeats(self) -> Mapping[str, bool]:
        """Of both paths."""
        return {} if self.details is None else self.details.repeats

    def contradiction(self) -> str | None:
        """Of two reruns, they are those of its two paths."""
        if not self.repeats.keys() <= {self.path, self.reference}:
            return f"repeats is {self.repeats!r}, expected its two paths"
        return super().contradiction()

    def why_not_holds(self) -> str | None:
        """Every bit is equal."""
        if self.faults:
            return f"it holds, and faults is {list(self.faults)!r}"
        if (wrong := super().why_not_holds()) is not None:
            return wrong
        return None if self.max_ulp == 0 else f"it holds, and max_ulp is {self.max_ulp!r}"

    def why_not_differs(self) -> str | None:
        """Rows differ, and the first is named; or rows that belong to no sequence are wrong."""
        seen = self.differing_tokens or self.differing_rows
        if seen and self.first_divergence is None:
            return "it differs, and has no first divergence"
        return None if self.faults else super().why_not_differs()


class InvarianceRelation(PathRelation):
    """Every value and every row has the same bits on both paths."""

    check = Invariance
    line = InvarianceCase
    holds = "bits are equal"
    file = KeptFile(
        tensors=("reference.values", "candidate.values", "reference.digests"),
        when="differs",
        by_token=True,
    )
    varies = (check.TAG,)

    def compare(self, asked: Asked) -> RelationAnswer:
        """Compare the two records."""
        other = asked.reference()  # a defect is planted before anything runs
        candidate, reference = asked.candidate.record(), other.record()
        found = invariance(reference, candidate, column=asked.column)
        return RelationAnswer(found, candidate, reference)

    def explained(self, asked: Asked, found: Comparison, reruns: Reruns) -> Comparison:
        """With names of columns, whether each side repeats its own bits, and causes of NaN."""
        paths = [side.side.path for side in (asked.reference(), asked.candidate)]
        found = named(asked.candidate.side.subject, found)
        if found.outcome == "differs" and not reruns.repeated:  # one case of a unit tells enough
            sides = {str(path): reruns.repeats(path) for path in paths}
            details = found.details or InvarianceDetails()
            found = replace(found, details=details.model_copy(update={"repeats": sides}))
        return with_cause(reruns, paths, found)


def with_cause(reruns: Reruns, paths: Sequence[PathName], found: Comparison) -> Comparison:
    """The same with the cause of a NaN, where it can be found out."""
    for path in paths:
        if cause := reruns.nan_cause(path):
            return replace(found, reason=f"{found.reason}: on path {path} {cause}")
    return found

"""Relation *invariance*: two paths of one subject, bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvparity.relations.asked import Answer, Asked, Reruns
from kvparity.relations.base import KeptFile, PathRelation
from kvparity.relations.bits_and_limits import Comparison, invariance
from kvparity.relations.case_lines import InvarianceCase
from kvparity.relations.explain import named
from kvparity_contracts.checks import Invariance
from kvparity_contracts.paths import PathName


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

    def compare(self, asked: Asked) -> Answer:
        """Compare the two records."""
        other = asked.reference()  # a defect is planted before anything runs
        candidate, reference = asked.candidate.record(), other.record()
        found = invariance(reference, candidate, column=asked.column)
        return Answer(found, candidate, reference)

    def explained(self, asked: Asked, found: Comparison, reruns: Reruns) -> Comparison:
        """With names of columns, whether each side repeats its own bits, and causes of NaN."""
        paths = [side.side.path for side in (asked.reference(), asked.candidate)]
        found = named(asked.candidate.side.subject, found)
        if found.outcome == "differs" and not reruns.repeated:  # one case of a unit tells enough
            sides = {str(path): reruns.repeats(path) for path in paths}
            found = replace(found, details={**found.details, "repeats": sides})
        return with_cause(reruns, paths, found)


def with_cause(reruns: Reruns, paths: Sequence[PathName], found: Comparison) -> Comparison:
    """The same with the cause of a NaN, where it can be found out."""
    for path in paths:
        if cause := reruns.nan_cause(path):
            return replace(found, reason=f"{found.reason}: on path {path} {cause}")
    return found

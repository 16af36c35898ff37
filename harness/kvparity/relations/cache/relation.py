"""How caches are asked for, and told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kvparity.plan.results import CaseLine
from kvparity.record.cache_snapshot import CachePlace, CacheSnapshot
from kvparity.relations.asked import Asked, RelationAnswer
from kvparity.relations.base import KeptFile, PathRelation
from kvparity.relations.cache.compare import CacheDetails, compare
from kvparity_contracts.checks import CacheCheck


class CacheCase(CaseLine):
    """What two paths' caches hold, and what was written."""

    relation: Literal["cache"]
    details: CacheDetails | None = Field(None, alias="cache")
    """for a cache check: storing `layers`, keys and values `compared`, and how many of these are
    `differing`; `sides` if one side does not hold what was written on it"""

    @property
    def sides(self) -> tuple[str, str]:
        """Of one side alone, what was written and what is read."""
        told = self.details is not None and "sides" in self.details.model_fields_set
        return self.details.sides if told and self.details is not None else super().sides

    def why_not_holds(self) -> str | None:
        """Nothing that is stored differs."""
        if self.details is not None and self.details.differing:
            return f"it holds, and differing is {self.details.differing}"
        return super().why_not_holds()


class CacheRelation(PathRelation):
    """What the caches of two paths hold at the end."""

    check = CacheCheck
    line = CacheCase
    holds = "stored bits are equal, and as written"
    counted = "positions"
    file = KeptFile(tensors=("reference.held", "candidate.held"), when="differs")
    first = True

    def compare(self, asked: Asked) -> RelationAnswer:
        """Compare what both hold; a place that differs is looked at in another run."""
        sides = {"reference": asked.reference(), "path": asked.candidate}
        left, right = (each.take_snapshot() for each in sides.values())

        def again(side: str, place: CachePlace) -> CacheSnapshot:
            return sides[side].side.take_snapshot(frozenset([place]))

        return RelationAnswer(compare(left, right, again), right, left)

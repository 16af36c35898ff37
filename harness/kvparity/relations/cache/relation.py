"""How caches are asked for, and told."""

from __future__ import annotations

from kvparity.record.cache_snapshot import Held, Place
from kvparity.relations.asked import Answer, Asked
from kvparity.relations.base import KeptFile, PathRelation
from kvparity.relations.cache.compare import compare
from kvparity.relations.case_lines import CacheCase
from kvparity_contracts.checks import CacheCheck


class CacheRelation(PathRelation):
    """What the caches of two paths hold at the end."""

    check = CacheCheck
    line = CacheCase
    holds = "stored bits are equal, and as written"
    counted = "positions"
    file = KeptFile(tensors=("reference.held", "candidate.held"), when="differs")
    first = True

    def compare(self, asked: Asked) -> Answer:
        """Compare what both hold; a place that differs is looked at in another run."""
        sides = {"reference": asked.reference(), "path": asked.candidate}
        left, right = (each.hold() for each in sides.values())

        def again(side: str, place: Place) -> Held:
            return sides[side].side.hold(frozenset([place]))

        return Answer(compare(left, right, again), right, left)

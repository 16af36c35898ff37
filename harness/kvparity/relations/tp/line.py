"""A case of tp-invariance as a line: what only it has, and what its verdicts rest on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kvparity.core.values import LIST, Count, Value
from kvparity.core.words import some
from kvparity.plan.results import CaseLine, Details
from kvparity.relations.tp.rank import Collective
from kvparity_contracts.checks import Check, TpInvariance


class RanksFound(Value):
    """One path at one number of ranks, compared with the reference on one rank."""

    ranks: Count
    """how many"""
    path: str
    """the path"""
    differing_tokens: Count
    """tokens whose value differs"""
    differing_rows: Count
    """tokens whose row digest differs"""
    unlike_ranks: Annotated[tuple[int, ...], LIST]
    """ranks that gave different bits than rank 0"""
    collectives: Annotated[tuple[Collective, ...], LIST]
    """what rank 0 really ran to communicate"""


class FirstRanks(Value):
    """Where the first divergence is."""

    ranks: Count
    """the fewest ranks that differ"""
    path: str
    """the path there"""
    operation: str | None
    """the first operation, of those whose rows are whole on every rank, that has other bits in the
    first such row; null: none has"""


class TpDetails(Details):
    """What was run on several ranks."""

    reduce: Literal["fixed", "all_reduce"]
    """as the check has it"""
    row_blocks: Count | None
    """of the subject; null: one chain"""
    found: Annotated[tuple[RanksFound, ...], LIST]
    """by number of ranks, then path: the reference, too, is run at each"""
    first: FirstRanks | None
    """of the first that differs; null: none does"""


class TpCase(CaseLine):
    """One path at several numbers of ranks: bits."""

    relation: Literal["tp-invariance"]
    details: TpDetails | None = Field(None, alias="tp-invariance")
    """for a tp-invariance check: what was compared at which number of ranks, and the collectives
    that ran"""

    @property
    def sides(self) -> tuple[str, str]:
        """Both with their numbers of ranks, where bits differ at several."""
        reference, path = super().sides
        if self.details is None or (first := self.details.first) is None:
            return reference, path
        return f"{reference}, 1 rank", f"{first.path}, {first.ranks} ranks"

    def why_not_holds(self) -> str | None:
        """Every bit is equal at every number of ranks."""
        if (found := self.details) is None or not found.found:
            return "it holds, and no number of ranks is listed"
        for each in found.found:
            if each.ranks > 1 and not each.collectives:
                return f"it holds, and {each.path} at {some(each.ranks, 'rank')} ran no collective"
            if each.differing_tokens or each.differing_rows or each.unlike_ranks:
                return f"it holds, and {each.path} at {some(each.ranks, 'rank')} differs"
        if found.first is not None:
            return f"it holds, and first is {found.first!r}"
        return super().why_not_holds()

    def less_than(self, check: Check) -> str | None:
        """Both paths were compared at every number of ranks."""
        if self.verdict != "holds" or not isinstance(check, TpInvariance):
            return None
        found = self.details.found if self.details is not None else ()
        wanted: set[tuple[int, str | None]] = {(1, self.path)}
        wanted |= {(size, path) for size in check.sizes for path in (self.path, self.reference)}
        lacking = sorted(wanted - {(each.ranks, each.path) for each in found}, key=str)
        if lacking:
            ranks, path = lacking[0]
            return f"it holds, and {path} at {some(ranks, 'rank')} was not compared"
        return None

    def why_not_differs(self) -> str | None:
        """Bits of the reference differ, or those of ranks that should agree."""
        if self.details is not None and any(each.unlike_ranks for each in self.details.found):
            return None
        return super().why_not_differs()

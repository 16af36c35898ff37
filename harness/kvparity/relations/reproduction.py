"""Relation *reproduction*: one path, run in several processes, or on several nodes: bits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kvparity.core.errors import UnsupportedError
from kvparity.core.values import LIST, Count, Value
from kvparity.core.words import some
from kvparity.plan.results import CaseLine, Details
from kvparity.relations.asked import Asked, RelationAnswer
from kvparity.relations.base import PathRelation
from kvparity_contracts.checks import Check, ReproductionCheck


class RunPlace(Value):
    """Where a path was run."""

    node: str
    """name of the node"""
    process: Count
    """id of the process there"""
    device: str
    """the device's own name"""
    uuid: str | None
    """of a GPU"""
    versions: dict[str, str | None]
    """of what can decide bits, as in the report's `environment`"""


class ReproductionDetails(Details):
    """Where it was run."""

    runs: Annotated[tuple[RunPlace, ...], LIST]
    """one for each process, in the order in which they are compared with the first"""


class ReproductionCase(CaseLine):
    """One path in several processes: bits."""

    relation: Literal["reproduction"]
    details: ReproductionDetails | None = Field(None, alias="reproduction")
    """for a reproduction check: in which processes, on which nodes and devices it was run"""

    def why_not_holds(self) -> str | None:
        """It was run twice."""
        runs = () if self.details is None else self.details.runs
        if len({(run.node, run.process) for run in runs}) < max(2, len(runs)):
            return f"it holds, and was run in {len(runs)} processes, or in one of them twice"
        return super().why_not_holds()

    def less_than(self, check: Check) -> str | None:
        """It was run in as many processes, or on as many nodes."""
        if self.verdict != "holds" or not isinstance(check, ReproductionCheck):
            return None
        runs = () if self.details is None else self.details.runs
        if len(runs) != check.times:
            return f"it holds by {len(runs)} processes, and {check.times} were asked for"
        nodes = len({run.node for run in runs})
        if check.across == "nodes" and nodes < check.times:
            return f"it holds on {some(nodes, 'node')}, and {check.times} were asked for"
        return None


class ReproductionRelation(PathRelation):
    """Every value and every row has the same bits in every process."""

    check = ReproductionCheck
    line = ReproductionCase
    holds = "bits are equal in every process"
    counted = "rows"
    varies = (check.TAG,)
    apart = True

    def compare(self, asked: Asked) -> RelationAnswer:
        """One process alone shows nothing of it."""
        raise UnsupportedError(
            "a case of reproduction is run in several processes, which kvparity verify starts: "
            "verify again"
        )

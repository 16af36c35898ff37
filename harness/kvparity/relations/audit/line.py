"""A case of audit as a line: what only it has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kvparity.core.values import LIST, Json
from kvparity.plan.results import Details
from kvparity.relations.kernel_line import KernelCaseLine


class AuditDetails(Details):
    """Compiled kernels side by side, as `kvparity audit --json` writes them."""

    architecture: str
    """what they were compiled for"""
    verdict: Literal["same", "equal by model", "unknown", "different"]
    """the worst of the pairs"""
    by_model: Literal["void", "accepted"] = "void"
    """what the check says of kernels that are equal by model"""
    pairs: Annotated[tuple[Json, ...], LIST]
    """each pair of kernels that was compared"""


class AuditCase(KernelCaseLine):
    """Decode's kernels against prefill's, as compiled."""

    relation: Literal["audit"]
    details: AuditDetails | None = Field(None, alias="audit")
    """for an audit: `architecture`, `verdict`, and the `pairs` of `kvparity audit --json`"""

    def why_not_holds(self) -> str | None:
        """What decides the order is the same, or equal by a model that the check accepts."""
        found = None if self.details is None else self.details.verdict
        if self.details is not None and agrees(self.details.verdict, self.details.by_model):
            return None
        return f"it holds, and the audit found {found!r}"


def agrees(verdict: str, by_model: str) -> bool:
    """Whether a case with this verdict holds in a check that says so of a model."""
    return verdict == "same" or (verdict == "equal by model" and by_model == "accepted")

"""A case of parity as a line: what only it has, and what its verdicts rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from kvparity.core.values import Count, Finite, Number, Texts, Value
from kvparity.plan.results import Details
from kvparity.relations.kernel_line import KernelCaseLine


class SideToken(Value):
    """One token with both logprobs."""

    sequence: str
    """its name in the recording"""
    position: Count
    """in the whole sequence where its prompt is known, else in the response"""
    token: int
    """its id, or -1 where none is recorded"""
    rollout: Number
    """the rollout's logprob"""
    trainer: Number
    """the trainer's"""
    d: Number
    """trainer minus rollout"""


class ParityDetails(Details):
    """What two sides gave."""

    limits: dict[str, Finite]
    """by name; empty where bits are to be equal"""
    measured: dict[str, Number]
    """the numbers of `kvparity drift`, and those that a limit names; empty if no token is
    compared"""
    rollout: str
    """what drew the tokens"""
    trainer: str
    """what rescored them, with its settings"""
    sequences: Count
    """that were matched"""
    unmatched: Count
    """of the rollout, that have no counterpart"""
    allowed: Count
    """that may have none"""
    found: Texts
    """what was unusual in the recordings"""
    worst: SideToken | None
    """the token with the largest distance; null if all are equal"""


class ParityCase(KernelCaseLine):
    """Two sides that score the same tokens."""

    relation: Literal["parity"]
    details: ParityDetails | None = Field(None, alias="parity")
    """for a parity check: its `limits`, what was `measured`, the sides `rollout` and `trainer` in
    words, how many `sequences` were matched, how many are `unmatched` and how many `allowed` to
    be, what was `found` in the recordings, and the `worst` token"""

    @property
    def limits(self) -> Mapping[str, float] | None:
        """Those of its check."""
        return None if self.details is None else self.details.limits

    def measure(self, name: str) -> float | str | None:
        """By the names of its limits."""
        return None if self.details is None else self.details.measured.get(name)

    def _over(self) -> list[str]:
        """The limited measures that are missing, not finite, or over their limit."""
        if self.details is None:
            return []
        found = self.details.measured
        return [
            name
            for name, limit in self.details.limits.items()
            if not isinstance(value := found.get(name), (int, float)) or value > limit
        ]

    def why_not_holds(self) -> str | None:
        """Tokens were compared, all sequences matched, and every limit or bit is kept."""
        if self.details is None or not self.tokens:
            return "it holds, and nothing was compared"
        if self.details.unmatched > self.details.allowed:
            return f"it holds, and unmatched is {self.details.unmatched}"
        if over := self._over():
            return f"it holds, and {', '.join(over)} is not within its limit"
        if not self.details.limits and self.differing_tokens:
            return f"it holds, and differing_tokens is {self.differing_tokens}"
        return None

"""A case of parity as a line: what only it has, and what its verdicts rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from kvparity.core.values import Count, Finite, Json, Number, Texts, Value
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


class SideFacts(Value):
    """What a side is, and what it rests on."""

    kind: Literal["recorded", "model", "server"]
    """as in the contract"""
    name: str
    """the file, checkpoint or address"""
    about: str
    """the layout of a file, the settings of a model, API, version and model of a server"""
    fingerprint: str | None
    """of a model the one that `kvparity weights` gives its checkpoint, of a file its SHA-256"""
    flags: Json
    """that a server shows, without keys"""


class ParityDetails(Details):
    """What two sides gave."""

    limits: dict[str, Finite]
    """by name; empty where bits are to be equal"""
    measured: dict[str, Number]
    """the numbers of `kvparity drift`, and those that a limit names; empty if no token is
    compared"""
    ids: str
    """where the tokens are from: `recorded in`, `given in` or `drawn into` which file"""
    rollout: SideFacts
    """what drew the tokens, or scored those that are given"""
    trainer: SideFacts
    """what rescored them"""
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
    """for a parity check: its `limits`, what was `measured`, where the `ids` are from, the sides
    `rollout` and `trainer` (kind, name, what it is about, fingerprint, flags), how many
    `sequences` were matched, how many are `unmatched` and how many `allowed` to be, what was
    `found` in the recordings, and the `worst` token"""

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

"""A case of liveness as a line: what only it has, and what its verdicts rest on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kvparity.core.values import LIST, Count, Texts, Value
from kvparity.plan.results import CaseLine, Details


class ChangedKey(Value):
    """One changed key and value of a cache."""

    sequence: str
    """`workload/number`"""
    row: Count
    """position of the row that was computed again"""
    layer: Count
    """of the cache"""
    head: Count
    """KV head"""
    position: Count
    """of the key"""

    def __str__(self) -> str:
        where = f"layer {self.layer}, KV head {self.head}, position {self.position}"
        return f"{where} of {self.sequence} (row {self.row})"


ChangedKeys = Annotated[tuple[ChangedKey, ...], LIST]


class LivenessDetails(Details):
    """What the changed keys showed."""

    probes: Count
    """changed keys"""
    visible: Count
    """of these, keys that the row sees"""
    dead: ChangedKeys
    """the first keys that the row sees and does not depend on"""
    wrongly_alive: ChangedKeys
    """the first keys that the row depends on and does not see"""
    unseen_layers: Texts
    """layers of which no key is seen"""


class LivenessCase(CaseLine):
    """Which cached keys a row depends on."""

    relation: Literal["liveness"]
    details: LivenessDetails | None = Field(None, alias="liveness")
    """for a liveness check: `probes` (changed keys), how many of these are `visible`; the first 8
    `dead` (visible, but the row does not change) and `wrongly_alive` (hidden, but the row changes),
    each with sequence, row, layer, head and position; `unseen_layers`, on whose keys no row
    depends"""

    def why_not_holds(self) -> str | None:
        """A row depends on what it sees, and on nothing else."""
        for name in ("dead", "wrongly_alive"):
            if faults := getattr(self.details, name, ()):
                return f"it holds, and {name} is {[str(each) for each in faults]!r}"
        return super().why_not_holds()

"""The cases of each relation as lines: what only it has, and what its verdicts rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from kvparity.core.values import LIST, Count, Counts, Finite, Number, Texts, Value
from kvparity.plan.results import CaseLine, Details


class InvarianceDetails(Details):
    """In the first case of a workload and its formats whose bits differ."""

    faults: Texts = ()
    """for a kernel pair (for accuracy too), what was wrong with rows that belong to no sequence"""
    repeats: dict[str, bool] = Field(default_factory=dict)
    """for each side, by path, whether a rerun gave the same bits"""


class InvarianceCase(CaseLine):
    """Two paths of one subject: bits."""

    relation: Literal["invariance"]
    details: InvarianceDetails | None = Field(None, alias="invariance")

    def contradiction(self) -> str | None:
        """Of two reruns, they are those of its two paths."""
        repeats = {} if self.details is None else self.details.repeats
        if not repeats.keys() <= {self.path, self.reference}:
            return f"repeats is {repeats!r}, expected its two paths"
        return super().contradiction()

    def why_not_holds(self) -> str | None:
        """Every bit is equal."""
        if self.details is not None and self.details.faults:
            return f"it holds, and faults is {list(self.details.faults)!r}"
        if (wrong := super().why_not_holds()) is not None:
            return wrong
        return None if self.max_ulp == 0 else f"it holds, and max_ulp is {self.max_ulp!r}"

    def why_not_differs(self) -> str | None:
        """Rows differ, and the first is named; or rows that belong to no sequence are wrong."""
        seen = self.differing_tokens or self.differing_rows
        if seen and self.first_divergence is None:
            return "it differs, and has no first divergence"
        faults = self.details is not None and self.details.faults
        return None if faults else super().why_not_differs()


class Spot(Value):
    """One compared token of an accuracy case."""

    sequence: str
    """`workload/number`"""
    position: Count
    """of the token; of the query row for a kernel pair"""
    token: int | None
    """id of the token; null for a kernel pair"""
    column: Count
    """with the largest error: number of the temperature; for a kernel pair the element"""
    value: Number
    """the path's"""
    exact: Number
    """in float64"""
    error: Number
    """between them"""
    name: str | None = None
    """of the column, for a kernel pair"""


class AccuracyDetails(Details):
    """What an accuracy case measured, and where."""

    limits: dict[str, Finite]
    """its limits"""
    first: Spot | None
    """the first token over the limit of a token; if there is none, the first with any difference;
    null if no token has one"""
    worst: Spot | None
    """the token with the largest error; null if no token has one"""
    faults: Texts = ()
    """for a kernel pair, what was wrong with rows that belong to no sequence"""


class AccuracyCase(CaseLine):
    """A path against float64: limits."""

    relation: Literal["accuracy"]
    details: AccuracyDetails | None = Field(None, alias="accuracy")

    @property
    def limits(self) -> Mapping[str, float] | None:
        """Those of its check."""
        return None if self.details is None else self.details.limits

    def _over(self) -> list[str]:
        """The measures that are missing, not finite, or over their limit."""
        limits = {} if self.details is None else self.details.limits
        found = {name: getattr(self, name, None) for name in limits}
        return [n for n, x in found.items() if not isinstance(x, float) or x > limits[n]]

    def why_not_holds(self) -> str | None:
        """Every measure is within its limit."""
        if self.details is None or not self.details.limits:
            return "it holds, and no measure is not within its limit"
        if self.details.faults:
            return f"it holds, and faults is {list(self.details.faults)!r}"
        if over := self._over():
            return f"it holds, and {', '.join(over)} is not within its limit"
        return super().why_not_holds()

    def why_not_differs(self) -> str | None:
        """A token, a row that belongs to no sequence or a measure is off."""
        seen = self.differing_tokens or self.differing_rows or self._over()
        faults = self.details is not None and self.details.faults
        return None if seen or faults else "it differs, and is within every limit"


class CacheDetails(Details):
    """How much of two caches was compared."""

    layers: Count
    """storing layers"""
    compared: Count
    """keys and values that were compared"""
    differing: Count
    """keys and values that differ"""
    sides: Annotated[tuple[str, str], LIST] = ("reference", "candidate")
    """`["written", "read"]` where one side alone is wrong"""


class CacheCase(CaseLine):
    """What two paths' caches hold, and what was written."""

    relation: Literal["cache"]
    details: CacheDetails | None = Field(None, alias="cache")

    def why_not_holds(self) -> str | None:
        """Nothing that is stored differs."""
        if self.details is not None and self.details.differing:
            return f"it holds, and differing is {self.details.differing}"
        return super().why_not_holds()


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

    def why_not_holds(self) -> str | None:
        """A row depends on what it sees, and on nothing else."""
        for name in ("dead", "wrongly_alive"):
            if faults := getattr(self.details, name, ()):
                return f"it holds, and {name} is {[str(each) for each in faults]!r}"
        return super().why_not_holds()


class BrokenInvariant(Value):
    """One invariant of a trace that one row breaks."""

    invariant: str
    """its name"""
    step: Count
    """of the schedule"""
    sequence: str
    """`workload/number`"""
    place: Count
    """position of the row"""
    layer: Count | None
    """null: of no layer alone"""
    sentence: str
    """what is wrong"""


class TraceDetails(Details):
    """What every layer looked at."""

    layers: Count
    """attention layers"""
    judged: Counts
    """by invariant, of how many rows and layers it was judged"""
    broken: Annotated[tuple[BrokenInvariant, ...], LIST]
    """the first that are broken"""
    weight_sum_ulps: Number | None
    """the largest distance of a sum of weights from 1, in float32 ulps; null without an LSE"""
    weight_sum_bound_ulps: Number | None
    """what rounding allows of it; null without an LSE"""
    largest_out_ratio: Number | None
    """the largest error of a result as a share of what rounding allows"""


class TraceCase(CaseLine):
    """What every layer looks at."""

    relation: Literal["trace"]
    details: TraceDetails | None = Field(None, alias="trace")

    def why_not_holds(self) -> str | None:
        """No invariant is broken."""
        if self.details is not None and self.details.broken:
            return f"it holds, and broken is {[each.invariant for each in self.details.broken]!r}"
        return super().why_not_holds()

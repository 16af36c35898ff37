"""What one case showed, and one control, as lines of a run folder and of the report.

A relation whose cases carry something of their own has a subclass: ``relation`` is a ``Literal`` of
its name, ``details`` its own :class:`Details` with the relation's name as ``alias``, and
:meth:`CaseLine.contradiction` what its verdicts rest on. The relation names it: ``Relation.line``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from kvparity.core.values import (
    LIST,
    Count,
    Digest,
    Finite,
    Hex,
    Json,
    Number,
    RunLine,
    Texts,
    Value,
)
from kvparity.plan.planted import Formats, Reach
from kvparity_contracts.checks import Check

Outcome = Literal["holds", "differs", "void", "error"]
SideName = Literal["reference", "candidate"]


class Divergence(Value):
    """The first compared token whose bits differ, or the first element of a cache."""

    sequence: str
    """`workload/number`"""
    position: Count
    """of the token; of the query row for a kernel pair; of the key in a cache"""
    token: int | None
    """id of the token; null for a kernel pair"""
    column: Count
    """number of the temperature; for a kernel pair the element: O by head, then LSE; for a cache
    the element of the key or value, by head"""
    reference: Number
    """value of the reference, or as written"""
    candidate: Number
    """value of the path, or as read"""
    reference_bits: Hex
    """its bits"""
    candidate_bits: Hex
    """the same"""
    ulps: Count | None
    """distance; null if one is not finite"""
    reference_digest: Digest
    """digest of the whole row"""
    candidate_digest: Digest
    """the same"""
    layer: Count | None
    """the storing layer, from 0; null except for a cache"""
    part: Literal["k", "v"] | None
    """`k` or `v`; null except for a cache"""
    name: str | None
    """of the column, for a kernel pair: `head 3, dim 17` or `lse of head 2`; else null"""


class Place(Value):
    """Where a case ran, of a run on Ray."""

    node: str
    """Ray's id of the node"""
    host: str
    """its host name"""
    device: str
    """the processor's or the GPU's own name"""
    uuid: str | None
    """the GPU's own number; null on a CPU"""
    versions: dict[str, str | None]
    """on the node, as in `environment.versions`"""
    attempts: Annotated[int, Field(ge=1)]
    """how often its task was begun until the case ended; more than 1 only where machines were
    lost"""
    lost: Texts
    """why each attempt before did not end"""

    @model_validator(mode="after")
    def _counted(self) -> Place:
        if self.attempts != len(self.lost) + 1:
            raise ValueError(f"{self.attempts} attempts, and {len(self.lost)} were lost")
        return self


class Details(Value):
    """What only the cases of one relation have."""


class CaseLine(RunLine):
    """One case; each verdict comes with what it rests on."""

    file: ClassVar[str] = "cases.jsonl"
    id: str
    """`c000`, …: the same for the same contract"""
    check: str
    """name of the check"""
    relation: str
    """of the check"""
    workload: str | None
    """name of the workload; null for order and audit"""
    reference: str | None
    """the path that it is compared with; null if the path is judged alone"""
    path: str
    """the path"""
    dtype: str
    """execution format"""
    kv_cache: str
    """cache format"""
    device: str | None = None
    """the architecture whose products were computed ([device numerics](device-numerics.md)); null:
    none"""
    temperature: Finite | None
    """null for a kernel pair, and if no logprob is compared"""
    rollout: str | None
    """the side whose logprobs are the rollout's: the one that decodes or generates; if both do, the
    reference; if neither does, and for accuracy, the path. Null if no logprob is compared"""
    trainer: str | None
    """the other side, which rescores the tokens: a path, or `float64`"""
    verdict: Outcome
    """`holds`, `differs`, `void` or `error`"""
    reason: str
    """why"""
    tokens: Count
    """compared tokens, or rows of a kernel pair; for a cache, positions that both sides hold; for
    liveness, changed keys; 0 for order and audit, whose other measures are null"""
    of: Count | None = None
    """how many rows the sequences have, where the workload [chooses](long-contexts.md) which of
    them are compared; nothing is claimed of the others"""
    differing_tokens: Count
    """of these, tokens whose value differs; positions or changed keys that fail the check"""
    differing_rows: Count
    """of these, tokens whose row digest differs"""
    max_ulp: Count | None
    """largest difference of compared values, in float32 ulps (units in the last place); null for
    accuracy"""
    max_abs: Number | None
    """largest absolute difference of an element; null for language models"""
    max_abs_dlogp: Number | None
    """largest absolute difference of a logprob; null for a kernel pair"""
    approx_kl0: Number | None
    """see [limits](contracts.md#relations), with d the trainer's logprob minus the rollout's; null
    for a kernel pair"""
    clipfrac0: Number | None
    """the same"""
    first_divergence: Divergence | None
    """null, or the first row that differs"""
    details: Details | None = None
    """what only its relation has, under the relation's name"""
    evidence: str | None = None
    """the file in `failures/`, only if bits differ; for an accuracy case the file in `accuracy/`"""
    recheck: Literal["differs"] | None = None
    """`differs`, only if a fresh process gave other bits than the run: state that the subject keeps
    between calls made both sides agree"""

    place: Place | None = None
    """only of a run on Ray: where it ran"""

    @property
    def limits(self) -> Mapping[str, float] | None:
        """What it was checked against, or None where nothing was measured against limits."""
        return None

    @property
    def sides(self) -> tuple[str, str]:
        """The names of the two that its first divergence shows."""
        return str(self.reference), self.path

    @property
    def faults(self) -> tuple[str, ...]:
        """What was wrong with rows that belong to no sequence."""
        return ()

    @property
    def repeats(self) -> Mapping[str, bool]:
        """By path, whether a rerun gave the same bits; empty where there was none."""
        return {}

    @property
    def kernels(self) -> Mapping[str, Json]:
        """What only this case launched, by name."""
        return {}

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> CaseLine:
        wrong = self.contradiction()
        if wrong is not None:
            raise ValueError(wrong)
        return self

    def measure(self, name: str) -> float | str | None:
        """What a limit of this name is compared with."""
        found: float | str | None = getattr(self, name)
        return found

    def rechecked(self, reason: str) -> CaseLine:
        """The same of a report, where a fresh process gave other bits: ``differs``."""
        more = {"verdict": "differs", "reason": reason, "recheck": "differs"}
        return self.model_validate(self.document() | more)

    def contradiction(self) -> str | None:
        """Why this verdict cannot come with what the line counts and measures, or None."""
        if self.recheck is not None:  # it held, until fresh processes computed its rows
            return None if self.verdict == "differs" else f"it was rechecked, and it {self.verdict}"
        if self.verdict == "holds":
            return self.why_not_holds()
        if self.verdict == "differs":
            return self.why_not_differs()
        found = self.first_divergence
        return None if found is None else f"it is {self.verdict}, and has a first divergence"

    def why_not_holds(self) -> str | None:
        """Why it cannot hold, or None."""
        if not self.tokens:
            return "it holds, and nothing was compared"
        for name in ("differing_tokens", "differing_rows"):
            if count := getattr(self, name):
                return f"it holds, and {name} is {count}"
        if self.first_divergence is not None:
            return "it holds, and has a first divergence"
        return None

    def why_not_differs(self) -> str | None:
        """Why it cannot differ, or None."""
        if not self.differing_tokens and not self.differing_rows:
            return "it differs, and counts nothing that does"
        return None

    def less_than(self, check: Check) -> str | None:
        """Why it holds by less than its check asks for, or None."""
        return None


class ControlLine(RunLine):
    """One planted defect, and what its check said of it."""

    file: ClassVar[str] = "controls.jsonl"
    name: str
    """see [controls](contracts.md#controls)"""
    relation: str
    """the relation of the checks that depend on it"""
    caught: bool
    """whether the check gave the expected result"""
    by: str
    """the check"""
    seen: str
    """the actual result"""
    measured: dict[str, Number]
    """for an accuracy control: what the defect measured; the limits of every accuracy check are
    compared with it. Else empty"""
    reach: Annotated[tuple[Reach, ...], LIST] = ()
    """for a fault that both kernels of a pair share"""
    workload: str | None
    """where it was planted; null for order and audit"""
    path: str
    """the path that ran"""
    expected: Literal["differs", "void"]
    """the expected result"""
    numerics: Formats
    """the formats that it was planted in"""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ControlLine:
        if self.reach and self.caught is not all(row.seen for row in self.reach):
            raise ValueError(f"caught is {self.caught}, and its reach says otherwise")
        if not self.caught:
            return self
        if self.expected == "void" and not self.seen.startswith("void: "):
            raise ValueError(f"it was caught as void, and what was seen is {self.seen!r}")
        held = ("holds: ", "void: ", "without the defect")
        if self.expected == "differs" and self.seen.startswith(held):
            raise ValueError(f"it was caught as a difference, and what was seen is {self.seen!r}")
        return self

"""What one case showed, as a line of a run folder and of the report.

A relation whose cases carry something of their own has a subclass: ``relation`` is a ``Literal`` of
its name, ``details`` its own :class:`Details` with the relation's name as ``alias``, and
:meth:`CaseLine.contradiction` what its verdicts rest on. ``kvparity.relations.case_lines`` names
them all.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from kvparity.core.values import Count, Digest, Finite, Hex, Line, Number, Value

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


class Details(Value):
    """What only the cases of one relation have."""


class CaseLine(Line):
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

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> CaseLine:
        wrong = self.contradiction()
        if wrong is not None:
            raise ValueError(wrong)
        return self

    def contradiction(self) -> str | None:
        """Why this verdict cannot come with what the line counts and measures, or None."""
        if self.recheck is not None:  # it held, until fresh processes computed its rows
            return None if self.verdict == "differs" else f"recheck differs, and it {self.verdict}"
        if self.verdict == "holds":
            return self.why_not_holds()
        if self.verdict == "differs":
            return self.why_not_differs()
        return None

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

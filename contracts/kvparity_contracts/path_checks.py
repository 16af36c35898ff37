"""Checks of what paths compute, and of what they leave in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kvparity_contracts.base import Distinct, Fault, KeyPath
from kvparity_contracts.check_base import Compared, PathCheck, Paths
from kvparity_contracts.controls.base import Control
from kvparity_contracts.limits import TOKEN_LIMITS, AnyLimits, Limits
from kvparity_contracts.numerics import Numerics
from kvparity_contracts.paths import CACHELESS, DECODE, PREFILL, UNNAMED, UNTOLD, PathName
from kvparity_contracts.subjects import AnySubject, Transformers


class Invariance(Compared):
    """One subject, two paths: the same bits. Takes no tolerance."""

    TAG: ClassVar[str] = "invariance"
    TAKES_NO_TOLERANCE = (
        "an invariance check compares bits and takes no tolerance; use relation: accuracy"
    )

    relation: Literal["invariance"]
    """invariance: bits are compared."""
    paths: Paths
    """The paths that must have the same bits as the reference."""

    @classmethod
    def shown(cls, control: Control) -> Control | None:
        """Two sides that are planted alike need two paths to differ."""
        alike = control.side == "both" and control.path == PREFILL
        return replace(control, path=DECODE) if alike else control


class Accuracy(PathCheck):
    """A path against the float64 twin: within limits."""

    TAG: ClassVar[str] = "accuracy"

    relation: Literal["accuracy"]
    """accuracy: compared with float64, within limits."""
    limits: AnyLimits
    """Upper limits, or a mapping from execution format to limits."""
    paths: Annotated[Paths, Field(json_schema_extra={"default": ["prefill"]})] = (PREFILL,)
    """The paths to measure."""

    def each(self) -> Iterator[tuple[KeyPath, Limits]]:
        """All limits, with the key under ``limits`` where they stand."""
        if isinstance(self.limits, Limits):
            yield (), self.limits
        else:
            for dtype, limits in self.limits.items():
                yield (dtype,), limits

    def limits_for(self, execution: str) -> Limits:
        """The limits where execution is this format. The contract has them for each it runs."""
        for at, limits in self.each():
            if at in ((), (execution,)):
                return limits
        raise KeyError(f"no limits for {execution}")

    def limits_in(self, execution: str) -> Mapping[str, float]:
        """The limits that are set."""
        return self.limits_for(execution).given()

    def faults(self, subject: AnySubject, numerics: Numerics) -> Iterator[Fault]:
        """Limits that this subject does not have, and formats without limits."""
        allowed = ("max_abs",) if subject.kind == "attention" else TOKEN_LIMITS
        given = [dtype for at, _ in self.each() for dtype in at]
        for at, limits in self.each():
            for name in limits.given():
                if name not in allowed:
                    expected = f"{' or '.join(allowed)} for a subject of kind {subject.kind}"
                    yield Fault(("limits", *at, name), f"found the limit {name!r}", expected)
            for dtype in at:
                if dtype not in numerics.execution:
                    listed = ", ".join(numerics.execution)
                    expected = f"only formats of numerics.execution ({listed})"
                    yield Fault(("limits", dtype), f"found limits for {dtype}", expected)
        for dtype in () if isinstance(self.limits, Limits) else numerics.execution:
            if dtype not in given:
                message = f"limits for {dtype} are missing"
                yield Fault(("limits",), message, "limits for each format")


class CacheCheck(Compared):
    """What the cache holds at the end: the same bits on two paths, and what was written."""

    TAG: ClassVar[str] = "cache"
    TAKES_NO_TOLERANCE = "a cache check compares bits and takes no tolerance"
    INSIDE = True
    ALIKE = ("prefill",)

    relation: Literal["cache"]
    """cache: stored keys and values are compared, with the reference's and with those written."""
    paths: Paths
    """The paths whose cache must hold the same bits, at all positions that both hold."""

    @classmethod
    def shown(cls, control: Control) -> Control | None:
        """Both sides are looked at, on two paths."""
        found = super().shown(control)
        return None if found is None else replace(found, side=control.side)

    def own_faults(self) -> Iterator[Fault]:
        """Both sides have a cache."""
        yield from super().own_faults()
        hidden = "a path whose cache can be looked at"
        if self.reference.kind in CACHELESS:
            yield Fault(("reference",), f"found '{self.reference}'", hidden)
        yield from self.elsewhere(CACHELESS, hidden)


class LivenessCheck(PathCheck):
    """A computed row depends on every cached key and value that it sees, and on no other."""

    TAG: ClassVar[str] = "liveness"
    TAKES_NO_TOLERANCE = "a liveness check asks whether bits change and takes no tolerance"
    INSIDE = True
    ALIKE = ("prefill", "permuted", "batched")
    SEES_ORDER = False

    relation: Literal["liveness"]
    """liveness: single cached keys and values are changed, and the last row computed again."""
    paths: Annotated[Paths, Field(json_schema_extra={"default": ["decode"]})] = (DECODE,)
    """The paths whose last rows are looked at."""
    layers: Distinct[Annotated[int, Field(ge=0)]] | None = None
    """Numbers of the storing layers to look at, from 0; left out, all of them."""

    def own_faults(self) -> Iterator[Fault]:
        """The last row of each path reads keys of earlier steps."""
        expected = "a path whose last row reads keys of earlier steps from a cache"
        yield from self.elsewhere((*CACHELESS, "prefill", "permuted", *UNNAMED), expected)


class ReproductionCheck(PathCheck):
    """The same path, run again in other processes or on other nodes: the same bits."""

    TAG: ClassVar[str] = "reproduction"
    TAKES_NO_TOLERANCE = "a reproduction check compares bits and takes no tolerance"
    ONCE = True

    relation: Literal["reproduction"]
    """reproduction: a path is run again in other processes, and its bits are compared."""
    paths: Annotated[Paths, Field(json_schema_extra={"default": ["decode"]})] = (DECODE,)
    """The paths to run again."""
    times: Annotated[int, Field(ge=2, le=16)] = 2
    """In how many processes each path is run."""
    across: Literal["processes", "nodes"] = "processes"
    """nodes: each process is on a node of its own (void where there are too few); processes: they
    may be on one."""

    def faults(self, subject: AnySubject, numerics: Numerics) -> Iterator[Fault]:
        """What a server computes is not in a process that is started here."""
        if subject.kind == "server":
            expected = "a subject that runs in processes of its own: pair, decoder or transformers"
            yield Fault(("relation",), "found reproduction of a running server", expected)


class TraceCheck(PathCheck):
    """What every layer looks at, row by row: positions, cache lengths, keys, weights, donors."""

    TAG: ClassVar[str] = "trace"
    TAKES_NO_TOLERANCE = "a trace check compares rows with derived bounds, and takes no tolerance"
    INSIDE = True
    ALIKE = ("prefill",)

    relation: Literal["trace"]
    """trace: the compared rows are checked against invariants of positions, keys and weights."""
    paths: Annotated[Paths, Field(json_schema_extra={"default": ["decode"]})] = (DECODE,)
    """The paths to trace."""

    def own_faults(self) -> Iterator[Fault]:
        """Each path is of the subject's own steps."""
        expected = "a path that reports what its layers see: the subject's own steps"
        yield from self.elsewhere(UNTOLD, expected, "decode")

    def blind(self, subject: AnySubject, path: PathName) -> str | None:
        """As any check that looks inside; and a mask that is no matrix cannot be reported."""
        found = super().blind(subject, path)
        flex = isinstance(subject, Transformers) and subject.attention == "flex_attention"
        if found is None and flex:
            return "what flex_attention sees cannot be reported: its mask is not a matrix"
        return found

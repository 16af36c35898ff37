"""Checks: what must hold between paths or between kernels, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from kvparity_contracts.base import DType, Fault, Model, Title, ToTuple, no_duplicates, refuse
from kvparity_contracts.limits import AnyLimits, Limits
from kvparity_contracts.numerics import DTypes
from kvparity_contracts.paths import CACHELESS, UNTOLD, Path, PathName

PREFILL = PathName("prefill")

Relation = Literal["invariance", "accuracy", "cache", "liveness", "trace", "order", "audit"]
Architecture = Literal["sm_80", "sm_90", "sm_100"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
FEWEST_KEYS = 3
"""Fewer keys than these are added in one order alone."""

Names = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(no_duplicates), ToTuple]


Paths = Annotated[tuple[Path, ...], Field(min_length=1), AfterValidator(no_duplicates), ToTuple]


def _compared(reference: PathName, paths: tuple[PathName, ...]) -> Iterator[Fault]:
    if reference.kind == "padded":
        yield Fault(("reference",), "found 'padded'", "a single path", "padded-left")
    for i, path in enumerate(paths):
        if path == reference:
            message = f"found '{path}', which is the reference itself"
            yield Fault(("paths", i), message, "another path: it would agree with itself")


class Invariance(Model):
    """One subject, two paths: the same bits. Takes no tolerance."""

    TAG: ClassVar[str] = "invariance"

    name: Title
    """What the check claims, in a few words."""
    relation: Literal["invariance"]
    """invariance: bits are compared."""
    reference: Annotated[Path, Field(json_schema_extra={"default": "prefill"})] = PathName(
        "prefill"
    )
    """The path that all others are compared with."""
    paths: Paths
    """The paths that must have the same bits as the reference."""
    workloads: Names | None = None
    """Names of the workloads to run; left out, all of them."""

    @model_validator(mode="after")
    def _check(self) -> Invariance:
        refuse(_compared(self.reference, self.paths))
        return self


class Accuracy(Model):
    """A path against the float64 twin: within limits."""

    TAG: ClassVar[str] = "accuracy"

    name: Title
    """What the check claims, in a few words."""
    relation: Literal["accuracy"]
    """accuracy: compared with float64, within limits."""
    limits: AnyLimits
    """Upper limits, or a mapping from execution format to limits."""
    paths: Annotated[Paths, Field(json_schema_extra={"default": ["prefill"]})] = (
        PathName("prefill"),
    )
    """The paths to measure."""
    workloads: Names | None = None
    """Names of the workloads to run; left out, all of them."""

    def limits_for(self, execution: DType) -> Limits:
        """The limits where execution is this format. The contract has them for each it runs."""
        if isinstance(self.limits, Limits):
            return self.limits
        for dtype, limits in self.limits.items():
            if dtype == execution:
                return limits
        raise KeyError(f"no limits for {execution}")


class CacheCheck(Model):
    """What the cache holds at the end: the same bits on two paths, and what was written."""

    TAG: ClassVar[str] = "cache"

    name: Title
    """What the check claims, in a few words."""
    relation: Literal["cache"]
    """cache: stored keys and values are compared, with the reference's and with those written."""
    reference: Annotated[Path, Field(json_schema_extra={"default": "prefill"})] = PathName(
        "prefill"
    )
    """The path whose cache all others are compared with."""
    paths: Paths
    """The paths whose cache must hold the same bits, at all positions that both hold."""
    workloads: Names | None = None
    """Names of the workloads to run; left out, all of them."""

    @model_validator(mode="after")
    def _check(self) -> CacheCheck:
        refuse(self._faults())
        return self

    def _faults(self) -> Iterator[Fault]:
        yield from _compared(self.reference, self.paths)
        hidden = "a path whose cache can be looked at"
        if self.reference.kind in CACHELESS:
            yield Fault(("reference",), f"found '{self.reference}'", hidden)
        for i, path in enumerate(self.paths):
            if path.kind in CACHELESS:
                yield Fault(("paths", i), f"found '{path}'", hidden)


class LivenessCheck(Model):
    """A computed row depends on every cached key and value that it sees, and on no other."""

    TAG: ClassVar[str] = "liveness"

    name: Title
    """What the check claims, in a few words."""
    relation: Literal["liveness"]
    """liveness: single cached keys and values are changed, and the last row computed again."""
    paths: Annotated[Paths, Field(json_schema_extra={"default": ["decode"]})] = (
        PathName("decode"),
    )
    """The paths whose last rows are looked at."""
    workloads: Names | None = None
    """Names of the workloads to run; left out, all of them."""
    layers: (
        Annotated[
            tuple[Annotated[int, Field(ge=0)], ...],
            Field(min_length=1),
            AfterValidator(no_duplicates),
            ToTuple,
        ]
        | None
    ) = None
    """Numbers of the storing layers to look at, from 0; left out, all of them."""

    @model_validator(mode="after")
    def _check(self) -> LivenessCheck:
        refuse(self._faults())
        return self

    def _faults(self) -> Iterator[Fault]:
        for i, path in enumerate(self.paths):
            if path.kind in (*CACHELESS, "prefill", "permuted"):
                expected = "a path whose last row reads keys of earlier steps from a cache"
                yield Fault(("paths", i), f"found '{path}'", expected)


class TraceCheck(Model):
    """What every layer looks at, row by row: positions, cache lengths, keys, weights, donors."""

    TAG: ClassVar[str] = "trace"

    name: Title
    """What the check claims, in a few words."""
    relation: Literal["trace"]
    """trace: the compared rows are checked against invariants of positions, keys and weights."""
    paths: Annotated[Paths, Field(json_schema_extra={"default": ["decode"]})] = (
        PathName("decode"),
    )
    """The paths to trace."""
    workloads: Names | None = None
    """Names of the workloads to run; left out, all of them."""

    @model_validator(mode="after")
    def _check(self) -> TraceCheck:
        refuse(self._faults())
        return self

    def _faults(self) -> Iterator[Fault]:
        for i, path in enumerate(self.paths):
            if path.kind in UNTOLD:
                expected = "a path that reports what its layers see: the subject's own steps"
                yield Fault(("paths", i), f"found '{path}'", expected, "decode")


class OrderCheck(Model):
    """Decode at N keys adds in the order of row N - 1 of prefill: what samples cannot show."""

    TAG: ClassVar[str] = "order"

    name: Title
    """What the check claims, in a few words."""
    relation: Literal["order"]
    """order: decode's reduction order is recovered by probing and certified on prefill."""
    keys: Annotated[
        tuple[Annotated[int, Field(ge=FEWEST_KEYS)], ...],
        Field(min_length=1),
        AfterValidator(no_duplicates),
        ToTuple,
    ]
    """Numbers of keys: each is a case."""
    execution: DTypes | None = None
    """Formats of numerics.execution to look at, or one of them; left out, all."""


class AuditCheck(Model):
    """The compiled kernels of decode decide order and roundings as those of prefill do."""

    TAG: ClassVar[str] = "audit"

    name: Title
    """What the check claims, in a few words."""
    relation: Literal["audit"]
    """audit: kernels of this project are compiled for GPUs that need not be here, and compared."""
    architectures: Annotated[
        tuple[Architecture, ...], Field(min_length=1), AfterValidator(no_duplicates), ToTuple
    ] = ARCHITECTURES
    """What the kernels are compiled for: each is a case."""


PathCheck = Invariance | Accuracy | CacheCheck | LivenessCheck | TraceCheck
"""Checks that run workloads on paths."""
AnyCheck = PathCheck | OrderCheck | AuditCheck
Check = Annotated[AnyCheck, Field(discriminator="relation")]


def reference_of(check: AnyCheck) -> PathName | None:
    """The path that a check's paths are compared with; None where they are judged alone."""
    return check.reference if isinstance(check, Invariance | CacheCheck) else None

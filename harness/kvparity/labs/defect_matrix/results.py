"""The document of the matrix, as typed JSON objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:  # it imports torch, which a list of controls does without
    from kvparity.core.environment import EnvironmentDocument


class EntryResult(TypedDict):
    """What one relation found of one control. ``seconds``: that it took."""

    control: str
    habitat: str
    """The name of its fixture contract."""
    workload: str | None
    relation: str
    path: str
    found: str
    """``caught``, ``not caught``, ``does not apply``, or ``void``: not clean without the defect."""
    seen: str
    seconds: float


class LocatedControl(TypedDict):
    """What ``kvparity locate`` named of one control. ``born``: the first birth's operation."""

    control: str
    habitat: str
    born: str | None
    complete: bool
    cause: str
    truth: str
    part: str | None
    """The part of the model with the first operation; None of a pair, which is one operation."""
    truth_part: str | None
    cause_right: bool
    first_right: bool | None


class ControlSummary(TypedDict):
    """Which relations caught one control. ``missed``: of ``must``, those that did not. ``located``:
    what was named as its cause; None where it changes no bits between paths."""

    control: str
    defects: list[int]
    by: dict[str, str]
    must: list[str]
    missed: list[str]
    habitats: list[str]
    located: LocatedControl | None


class DefectCount(TypedDict):
    """Reported defects, and how many of them a control expresses."""

    listed: int
    expressed: int


class LocatedScore(TypedDict):
    """Of how many controls that were located the cause and the first operation are right. A pair of
    kernels is one operation, so ``of_first`` are the others."""

    cause: int
    of: int
    first: int
    of_first: int


class MatrixDocument(TypedDict):
    """The whole result. ``ok``: each control was caught by all relations that must."""

    schema_version: int
    ok: bool
    environment: EnvironmentDocument
    defects: DefectCount
    located: LocatedScore
    controls: list[ControlSummary]
    cells: list[EntryResult]
    elapsed_s: float


class ListedControl(TypedDict):
    """One control as ``kvparity controls --json`` lists it."""

    name: str
    about: str
    source: str
    subjects: list[str]
    needs: str
    must: list[str]
    cause: str | None
    born: str | None
    expect: str
    defects: list[int]

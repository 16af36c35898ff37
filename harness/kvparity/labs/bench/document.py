"""The document of ``kvparity bench``, as typed JSON objects.

A saved one is read with what is here and not checked against it: :func:`.measure.read` says what is
no such document.
"""

from __future__ import annotations

from typing import TypedDict

from kvparity.core.environment import EnvironmentDocument
from kvparity.labs.bench.cases import What
from kvparity_contracts.json_types import JsonObject, JsonValue


class TimeJson(TypedDict):
    """Milliseconds of one call of one way: median and quarter points, and the run they are of."""

    ms: float
    quarter: float
    three_quarters: float
    run: str


class CaseJson(TypedDict):
    """One case: its sizes, times by way, and why a way, or all of it, could not be timed."""

    what: What
    sizes: dict[str, int]
    bytes: int
    flops: int
    times: dict[str, TimeJson]
    cannot: dict[str, str]
    left_out: str


class CopyJson(TypedDict, total=False):
    """What a plain copy moved. ``before``, ``after``: its rates around the cases, in GB/s."""

    bytes: int
    ms: float
    quarter: float
    three_quarters: float
    run: str
    gb_per_s: float
    before: float
    after: float


class BenchDocument(TypedDict, total=False):
    """The whole; those of older versions have less."""

    schema_version: int
    verdict: str
    run: str
    shape: JsonObject
    tiles: dict[str, JsonValue]
    copy: CopyJson
    cases: list[CaseJson]
    environment: EnvironmentDocument
    goals: list[JsonObject]

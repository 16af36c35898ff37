"""The lines of a unit's paths: what is told of them, and how often."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from records import DECODE, record

from kvparity.record.execute import Record
from kvparity.report.unit_paths import UnitPaths
from kvparity_contracts.paths import PathName

PREFILL_PATH, DECODE_PATH = PathName("prefill"), PathName("decode")


def paths(known: dict[Any, Any] | None = None) -> tuple[UnitPaths, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    rows = lambda records: {str(path): f"rows of {path}" for path in records}  # noqa: E731
    return UnitPaths("u", known or {}, told.append, rows), told


def ended(**counts: int) -> Record:
    return replace(record(DECODE, launched={"k": 1}), observed=Counter(counts))


def test_a_path_is_told_once_for_itself_and_once_where_it_was_probed() -> None:
    found, told = paths()
    one, other = ended(a=1), ended(a=2, b=3)
    found.look({PREFILL_PATH: one}, {}, {"prefill": 0.5})
    found.look({PREFILL_PATH: ended(a=9)}, {PREFILL_PATH: other}, {"prefill": 0.7})
    found.look({PREFILL_PATH: one}, {PREFILL_PATH: other}, {})
    launches = {"counts": {"k": 1}}
    line = {"unit": "u", "path": "prefill", "launches": launches}
    assert told == [
        line | {"probed": False, "observed": {"a": 1}, "seconds": 0.5, "rows": "rows of prefill"},
        line | {"probed": True, "observed": {"a": 2, "b": 3}, "seconds": 0.7},
    ]
    assert found.observed() == {"a": 3, "b": 3}


@pytest.mark.parametrize("first", [True, False])
def test_where_a_path_also_ran_without_a_probe_that_counts(first: bool) -> None:
    found, told = paths()
    plain, probed = {DECODE_PATH: ended(a=1)}, {DECODE_PATH: ended(a=2)}
    found.look(plain if first else {}, {} if first else probed, {"decode": 0.5})
    found.look(plain, probed, {"decode": 0.5})
    assert len(told) == 2
    assert found.json() == {
        "observed": {"decode": {"a": 1}}, "launches": {"decode": {"counts": {"k": 1}}},
        "seconds": {"decode": 0.5}, "rows": {"decode": "rows of decode"},
    }  # fmt: skip


def test_of_a_path_that_was_only_probed_there_are_no_rows_and_no_seconds() -> None:
    known = {("prefill", False): {"path": "prefill", "probed": False, "observed": {"a": 4},
                                  "launches": {}, "seconds": None, "rows": []}}  # fmt: skip
    found, told = paths(known)
    found.look({PREFILL_PATH: ended(a=1)}, {DECODE_PATH: ended(a=2)}, {})
    assert [line["path"] for line in told] == ["decode"]
    assert found.observed() == {"a": 6}
    json = found.json()
    assert (json["seconds"], json["rows"]) == ({}, {"prefill": []})
    assert json["observed"] == {"prefill": {"a": 4}, "decode": {"a": 2}}

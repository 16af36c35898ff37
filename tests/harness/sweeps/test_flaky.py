"""The same verification that gave other verdicts or other bits."""

from __future__ import annotations

from typing import Any

import pytest
from sweep_rows import row

from kvparity.sweeps.history import history

FLAKY: dict[str, tuple[dict[str, Any], bool]] = {
    "another verdict": ({"verdict": "differs"}, True),
    "other bits": ({"digest": "b"}, True),
    "the same": ({}, False),
    "another release": ({"transformers": "5.24.0", "verdict": "differs"}, False),
    "an edited contract": ({"contract_sha256": "cd", "verdict": "differs"}, False),
    "other sources": ({"sources": "cd", "verdict": "differs"}, False),
    "another seed": ({"seed": 1, "digest": "b"}, False),
}


@pytest.mark.parametrize("name", FLAKY)
def test_what_is_flaky(name: str) -> None:
    changes, flaky = FLAKY[name]
    found = history([row(digest="a"), row(at=1, **{"digest": "a"} | changes)])
    assert bool(found.flaky) is flaky


def test_what_is_flaky_is_told_with_its_runs() -> None:
    """Whatever is steady beside it."""
    same = {"verdict": "differs", "transformers": "5.24.0"}
    runs = [row(), row(at=1), row(**same), row(**same, at=1, digest="b")]
    runs += [row(**same, at=2, digest="c", run="runs/c"), row("5.25.0"), row("5.25.0", "void")]
    bits, verdicts = history(runs).flaky
    assert bits.words.startswith("different bits in 3 runs with the same contract")
    assert bits.runs == ("5.24.0-differs-0", "5.24.0-differs-1", "runs/c")
    assert verdicts.words.startswith("verdicts holds, void in 2 runs")
    some = [row(cell=cell, digest=cell) for cell in "ab"]  # of another case no row was kept
    others = [row(cell=cell, case_id="c001") for cell in "ab"]
    assert len(history([*some, *others]).flaky) == 1


def test_what_was_not_measured_is_not_flaky() -> None:
    """An earlier version called it an error, this one void: nothing was verified either time."""
    lacks = {"claim": None, "case_id": None, "packages": {"kvparity": None}}
    old, new = row(verdict="error", **lacks), row(verdict="void", measured=False, **lacks)
    assert not history([old, new]).flaky

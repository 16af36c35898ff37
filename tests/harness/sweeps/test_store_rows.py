"""What a store keeps of a report: a row for each case or check, why, and what the rows were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import run_documents
from sweep_rows import BEGAN

from kvparity.sweeps.store_rows import CellHead, StoreRow, now, rows_of

HEAD = CellHead(cell="x", run="runs/x", ended=BEGAN)
ROWS = {"decode": [[0, 3, "0x00000000000000aa", ["0xc0200000"]]]}


def rows(verdict: str, *cases: Any, folder: Path, **changes: Any) -> tuple[StoreRow, ...]:
    return rows_of(HEAD, run_documents.whole_report(verdict, *cases, **changes), folder)


def test_a_check_without_a_case_has_a_row(tmp_path: Path) -> None:
    (row,) = rows("void", folder=tmp_path)
    assert (row.case_id, row.dtype, row.verdict, row.claim_verdict) == (None, None, "void", "void")
    assert (row.claim, row.attempts, row.sweep) == ("decode reduces like prefill", 1, None)


def test_the_reason_of_the_whole_is_that_of_its_first_bad_check(tmp_path: Path) -> None:
    (row,) = rows("holds", run_documents.case(), folder=tmp_path)
    assert row.cell_reason == "1 checks hold"
    checks = run_documents.report("differs")["checks"] + run_documents.report("void")["checks"]
    checks = [run_documents.report("holds")["checks"][0] | {"name": "first"}, *checks]
    found = rows("differs", folder=tmp_path, checks=checks)
    assert {row.cell_reason for row in found} == {
        "decode reduces like prefill: 2 cases, bits are equal; 1 control caught"
    }


def test_a_difference_has_its_place_and_what_is_kept_its_second(tmp_path: Path) -> None:
    for name, told in ((None, "257: 0xc0"), ("a score", "257, a score: 0xc0")):
        first = run_documents.DIVERGENCE | {"name": name}
        case = run_documents.case(verdict="differs", differing_tokens=1, first_divergence=first)
        (row,) = rows("differs", case, folder=tmp_path)
        assert f"long/0, position {told}200000 against 0xc0200001" == row.first_divergence
    assert (now().microsecond, str(now().tzinfo)) == (0, "UTC")


def digest(folder: Path, *units: dict[str, Any]) -> str | None:
    lines = (
        {"sequences": [{"id": "long/0", "prompt": 1, "ids": [1, 2]}], "subject": {}, "observed": {},
         "launches": {}, "seconds": {}} | unit
        for unit in units
    )  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "units.jsonl").write_text(text)
    (row,) = rows("holds", run_documents.case(), folder=folder)
    return row.digest


UNIT = "long, bfloat16"


def test_rows_that_the_run_kept_of_both_sides_have_one_digest(tmp_path: Path) -> None:
    """Of the case's own unit and paths."""
    own = digest(tmp_path, {"unit": UNIT, "rows": ROWS})
    assert own is not None
    assert len(own) == 16, "as in every store that was written before"
    others = {"unit": "long, float32", "rows": ROWS}
    assert digest(tmp_path, others) is None
    assert digest(tmp_path, others, {"unit": UNIT, "rows": ROWS | {"mixed": ROWS["decode"]}}) == own
    assert digest(tmp_path, {"unit": UNIT, "rows": {"mixed": ROWS["decode"]}}) is None
    both = digest(tmp_path, {"unit": UNIT, "rows": ROWS | {"prefill": ROWS["decode"]}})
    assert both not in (None, own)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_another_row_is_another_digest(place: int, tmp_path: Path) -> None:
    other: list[Any] = [1, 4, "0x00000000000000ab", ["0xc0200001"]]
    row: list[Any] = [*ROWS["decode"][0]]
    row[place] = other[place]
    before = digest(tmp_path, {"unit": UNIT, "rows": ROWS})
    assert digest(tmp_path, {"unit": UNIT, "rows": {"decode": [row]}}) != before

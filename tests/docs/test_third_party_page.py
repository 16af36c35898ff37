"""The page of other projects' kernels: its table is that of its document."""

from __future__ import annotations

import json

import third_party_kernels as study


def test_the_page_has_the_table_of_its_document() -> None:
    rows = json.loads(study.OUT.read_text())
    assert study.rows_of(rows) in study.PAGE.read_text()
    assert set(rows) == {file.stem for file in study.CONTRACTS.glob("*.yaml")}
    assert {each["verdict"] for each in rows.values()} == {"holds", "differs"}
    assert all(each["controls"] == "2 of 2" for each in rows.values())

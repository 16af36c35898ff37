"""The table of faults is that of its data, and who looks again sees the same.

Which faults the audit sees is tested with the audit; here the committed table is held to that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fault_matrix
import pytest
import torch
from fault_matrix import OUT, PlantedFault, faults, look, render

ROWS: list[dict[str, Any]] = json.loads(OUT.with_suffix(".json").read_text())
KNOWN = {
    "another tile in decode": "tile",
    "splits merged as they come, with atomics": "atomics",
    "TF32 products": "tf32",
    "contraction (fusion) on": "fusion",
    "another number of warps": "num_warps",
    "exp instead of exp2": "exp",
}
"""The faults whose audit is tested, by the name that they have there."""
AGAIN = (
    "none",
    "tiles walked from the end",
    "split edges that follow the length",
    "splits merged as they come, with atomics",
    "exp instead of exp2",
    "another order where all scores are equal",
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PlantedFault]:
    return {fault.name: fault for fault in faults(tmp_path_factory.mktemp("sources"))}


def test_the_page_is_that_of_the_data() -> None:
    assert OUT.with_suffix(".md").read_text() == render(ROWS)


def test_every_fault_is_seen_by_some_relation_and_nothing_is_seen_without_one() -> None:
    sound, *faulty = ROWS
    assert sound["fault"] == "none"
    looks = ("bits", "order", "audit")
    assert [sound[name]["seen"] for name in looks] == [False] * 3
    for row in faulty:
        assert any(row[name] and row[name]["seen"] for name in looks), row["fault"]
    for name in looks:  # and none of them sees all
        assert any(row[name] and not row[name]["seen"] for row in faulty), name


def test_every_fault_has_its_row(planted: dict[str, PlantedFault]) -> None:
    told = [(row["fault"], row["planted"], row["audit"] is None) for row in ROWS]
    assert told == [(f.name, f.where, f.compiled is None) for f in planted.values()]


def test_the_audit_saw_what_its_tests_say_it_sees(tmp_path: Path) -> None:
    expected = fault_matrix.audit_cases.plant(tmp_path)
    for row in ROWS:
        if row["fault"] in KNOWN:
            case = expected[KNOWN[row["fault"]]]
            assert row["audit"]["verdict"] == case.verdict
            assert case.fields <= set(row["audit"]["fields"])


@pytest.mark.slow
@pytest.mark.parametrize("name", AGAIN)
def test_looking_again_sees_the_same(name: str, planted: dict[str, PlantedFault]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = look(planted[name])
    finally:
        torch.set_num_threads(threads)
    row = next(each for each in ROWS if each["fault"] == name)
    assert found[1] == row["order"]
    assert found[0]["seen"] == row["bits"]["seen"]

"""Controls of the ways in which engines call kernels, and that each dies with its way."""

from __future__ import annotations

from typing import Any

import pytest
from engine_calls import README, caught, setting

from kvparity.labs.defect_matrix import matrix
from kvparity.plan.cases import make
from kvparity.subjects.pair import sparse
from kvparity_contracts.controls.calls import CALLS

NAMES = [
    each.name
    for each in CALLS
    if not {"pages", "append", "out", "cross", "cache-views"} & {*each.features}
]
ALL = [each.name for each in CALLS if not {"out", "cross", "cache-views"} & {*each.features}]


@pytest.mark.parametrize("module", ["naive_pair.py", "wide_pair.py"])
@pytest.mark.parametrize("lengths", [[1], [3, 30], [40, 60]])
def test_the_controls_are_caught(module: str, lengths: list[int]) -> None:
    found = setting([*README[:3], "far"], NAMES, lengths=lengths, module=module)
    assert caught(found) == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize(("lengths", "page"), [([1], 2), ([3, 30], 16)])
def test_over_pages_they_are_caught_too(lengths: list[int], page: int) -> None:
    paths, module = [*README[:3], "far"], "paged_pair.py"
    found = setting(
        paths, ALL, lengths=lengths, module=module, **{"page": page, "append": f"{module}:append"}
    )
    assert caught(found) == dict.fromkeys(ALL, True)


def test_all_of_them_are_planned_where_a_contract_asks_for_all() -> None:
    planned = {each.control for each in make(setting(README).contract).controls}
    assert set(NAMES) <= planned


DROPPED: dict[str, tuple[str, Any]] = {
    "strides-ignored": ("strided", lambda inputs, **more: inputs),
    "empty-writes-neighbour": ("with_empties", list),
    "nan-without-keys": ("fault_of", lambda *given, **more: None),
    "offset-int32": ("spread_for", lambda longest, heads_first: sparse.Spread(64, heads_first)),
}


@pytest.mark.parametrize("name", DROPPED)
def test_without_such_a_call_its_control_is_missed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"kvparity.subjects.pair.session.{DROPPED[name][0]}", DROPPED[name][1])
    found = setting([*README[:3], "far"], [name])
    assert caught(found) == {name: False}


def test_where_a_device_cannot_run_a_path_nothing_must_catch_its_control() -> None:
    entry = {"habitat": "pair", "relation": "invariance", "found": "does not apply"}
    entries = [entry | {"control": name} for name in ("offset-int32", "batch-edge")]

    def missed(device: str) -> list[str]:
        return [each["control"] for each in matrix.summary(entries, device) if each["missed"]]

    assert missed("cpu") == ["batch-edge", "offset-int32"]
    assert missed("cuda") == ["batch-edge"]

"""Each control in a small place where it can live: clean without it, caught with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kvparity.controls.base import Plant, unchanged
from kvparity.controls.table import PLANTS, planting
from kvparity.core.isolation.pool import Here
from kvparity.labs.zoo import matrix, text, work
from kvparity.labs.zoo.cells import Cell, cells
from kvparity.labs.zoo.habitats import HABITATS, lives
from kvparity.subjects.base import SubjectError
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.controls.programs import PROGRAMS
from kvparity_contracts.planning import in_kernels

TRACED = {each.name for each in PROGRAMS}  # slow to trace; held by the tests of programs
PLANTED = [name for name, row in CONTROLS.items() if name not in TRACED and not in_kernels(row)]


def smallest(name: str) -> list[Cell]:
    """The cells of one control in its first place, under the relations that must catch it."""
    own = [cell for cell in cells([name]) if cell.relation in CONTROLS[name].relations]
    first = own[0]
    return [c for c in own if (c.habitat, c.workload) == (first.habitat, first.workload)]


@pytest.mark.parametrize("name", PLANTED)
def test_a_control_is_caught_by_what_must_and_its_place_is_clean(name: str) -> None:
    found = work.compute(smallest(name), "cpu")
    assert {entry["relation"] for entry in found} == set(CONTROLS[name].relations)
    for entry in found:
        assert entry["found"] == "caught", entry


def test_every_control_has_a_cell_for_each_relation_that_must() -> None:
    every = cells()
    assert len(every) == len(set(every))
    for name, control in CONTROLS.items():
        seen = {cell.relation for cell in every if cell.control == name}
        assert set(control.relations) <= seen, name


def test_every_habitat_is_lived_in() -> None:
    for habitat in HABITATS.values():
        assert [name for name, each in CONTROLS.items() if lives(each, habitat)], habitat.name


def planted(monkeypatch: pytest.MonkeyPatch, plant: Plant) -> dict[str, Any]:
    """The entry of one cell whose control is planted otherwise."""
    monkeypatch.setitem(PLANTS, "position-off-by-one", plant)
    cell = Cell("position-off-by-one", "plain", "edge", "invariance")
    (entry,) = work.compute([cell], "cpu")
    return entry


def test_what_changes_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = planted(monkeypatch, unchanged)
    assert (entry["found"], entry["seen"]) == ("not caught", "every bit is equal")
    (found,) = matrix.summary([entry])
    assert found["missed"] == ["invariance", "trace"]
    result = matrix.document([entry], {}, 1.0)
    assert not result["ok"]
    assert "MISSED  position-off-by-one: not caught by invariance, trace" in text.terminal(result)


def test_a_place_that_is_not_clean_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = planting(CONTROLS["decode-at-position-zero"])
    monkeypatch.setattr(work, "Planting", lambda: zero)
    monkeypatch.setattr(work, "_places", {})
    entry = planted(monkeypatch, PLANTS["position-off-by-one"])
    assert entry["found"] == "void"
    assert entry["seen"].startswith("with nothing planted: differs: ")


def test_a_run_that_ends_is_caught_and_a_defect_out_of_reach_does_not_apply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ends(subject: Any) -> Any:
        raise SubjectError("nothing there")

    entry = planted(monkeypatch, ends)
    assert (entry["found"], entry["seen"]) == ("caught", "the run ended: nothing there")
    entry = planted(monkeypatch, PLANTS["window-one-short"])
    assert entry["found"] == "does not apply"
    assert "needs a decoder of ours with a sliding window" in entry["seen"]


def test_orders_are_probed_too() -> None:
    cell = Cell("tile-by-query-count", "plain", "", "order")
    (entry,) = work.compute([cell], "cpu")
    assert entry["found"] == "caught", entry
    probed = {each.control for each in cells() if each.relation == "order"}
    of_kernels = {name for name, row in CONTROLS.items() if in_kernels(row)}
    assert of_kernels - probed == {"other-warps"}


def test_tasks_hold_every_cell_once() -> None:
    every = cells()
    tasks = matrix._tasks(every)
    assert sorted(map(str, (cell for task in tasks for cell in task))) == sorted(map(str, every))
    assert max(map(len, tasks)) <= matrix.TASK


def test_several_processes_share_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def compute(cells: list[Cell], device: str) -> list[dict[str, Any]]:
        names = ("control", "habitat", "workload", "relation")
        return [{name: getattr(cell, name) for name in names} for cell in cells]

    class Other(Here):
        """Its results come in another order."""

        def __init__(self, jobs: int, *_: Any, **__: Any) -> None:
            assert jobs == 3

        def run(self, tasks: Any) -> Iterator[Any]:
            return super().run(reversed(list(tasks)))

    monkeypatch.setattr(matrix, "compute", compute)
    monkeypatch.setattr(matrix, "Apart", Other)
    one, three = (
        matrix.run(
            ["stale-slot"], device="cpu", jobs=jobs, progress=lambda *both: seen.append(both)
        )
        for jobs in (1, 3)
    )
    assert one == three
    assert len(one) == len(cells(["stale-slot"])) > 1
    assert seen[-1] == (len(one), len(one))

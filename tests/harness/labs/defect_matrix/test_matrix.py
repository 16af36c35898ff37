"""Each control in a small place where it can live: clean without it, caught with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvparity.controls.base import Plant, unchanged
from kvparity.controls.table import PLANTS, planting
from kvparity.core.isolation.pool import Here
from kvparity.labs.defect_matrix import matrix, text, work
from kvparity.labs.defect_matrix.entries import Entry, entries
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES, applies
from kvparity.subjects.base import SubjectError
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.controls.programs import PROGRAMS
from kvparity_contracts.planning import in_kernels

TRACED = {each.name for each in PROGRAMS}  # slow to trace; held by the tests of programs
SIDES = {name for name, row in CONTROLS.items() if row.side in ("sides", "ranks")}
"""Planted in no subject, but in logprobs or ranks: tests of parity and of tp-invariance."""
SERVED = {name for name, row in CONTROLS.items() if row.subjects == ("server",)}
"""Planted in a server's answers: tests/harness/subjects/test_server.py."""
MODELLED = {"other-instruction"}
"""Of a device's products, which no fixture asks for: tests/harness/run/test_modelled_runs.py."""
BETWEEN = {name for name, row in CONTROLS.items() if row.relations == ("reproduction",)}
"""Seen between processes alone: tests/harness/run/test_reproduce.py."""
ELSEWHERE = SIDES | SERVED | MODELLED | BETWEEN
HERE = {name: row for name, row in CONTROLS.items() if name not in ELSEWHERE}
PLANTED = [name for name, row in HERE.items() if name not in TRACED and not in_kernels(row)]


def smallest(name: str) -> list[Entry]:
    """The entries of one control in its first place, under the relations that must catch it."""
    own = [entry for entry in entries([name]) if entry.relation in CONTROLS[name].relations]
    first = own[0]
    return [c for c in own if (c.fixture, c.workload) == (first.fixture, first.workload)]


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_control_is_caught_by_what_must_and_its_fixture_is_clean(name: str) -> None:
    found = work.compute(smallest(name), "cpu")
    assert {result["relation"] for result in found} == set(CONTROLS[name].relations)
    for result in found:
        assert result["found"] == "caught", result


def test_every_control_has_an_entry_for_each_relation_that_must() -> None:
    every = entries()
    assert len(every) == len(set(every))
    assert {"id-reported-as-another"} == SERVED
    assert not {entry.control for entry in every} & ELSEWHERE
    for name, control in HERE.items():
        seen = {entry.relation for entry in every if entry.control == name}
        assert set(control.relations) <= seen, name


@pytest.mark.parametrize(("names", "where"), [(MODELLED, "run")])
def test_what_has_no_fixture_is_planted_elsewhere(names: set[str], where: str) -> None:
    files = (Path(__file__).parents[2] / where).glob("test_*.py")
    text = "".join(each.read_text() for each in files)
    assert [name for name in sorted(names) if f'"{name}"' not in text] == []


def test_every_fixture_contract_has_controls() -> None:
    for fixture in FIXTURES.values():
        assert [name for name, each in CONTROLS.items() if applies(each, fixture)], fixture.name


def planted(monkeypatch: pytest.MonkeyPatch, plant: Plant) -> dict[str, Any]:
    """The result of one entry whose control is planted otherwise."""
    monkeypatch.setitem(PLANTS, "position-off-by-one", plant)
    entry = Entry("position-off-by-one", "plain", "edge", "invariance")
    (result,) = work.compute([entry], "cpu")
    return result


def test_what_changes_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    result = planted(monkeypatch, unchanged)
    assert (result["found"], result["seen"]) == ("not caught", "every bit is equal")
    (found,) = matrix.summary([result])
    assert found["missed"] == ["invariance", "trace"]
    result = matrix.document([result], [], {}, 1.0)
    assert not result["ok"]
    assert "MISSED  position-off-by-one: not caught by invariance, trace" in text.terminal(result)


def test_a_fixture_that_is_not_clean_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = planting(CONTROLS["decode-at-position-zero"])
    monkeypatch.setattr(work, "Planting", lambda: zero)
    monkeypatch.setattr(work, "_all_built", {})
    result = planted(monkeypatch, PLANTS["position-off-by-one"])
    assert result["found"] == "void"
    assert result["seen"].startswith("with nothing planted: differs: ")


def test_a_run_that_ends_is_caught_and_a_defect_out_of_reach_does_not_apply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ends(subject: Any) -> Any:
        raise SubjectError("nothing there")

    result = planted(monkeypatch, ends)
    assert (result["found"], result["seen"]) == ("caught", "the run ended: nothing there")
    result = planted(monkeypatch, PLANTS["window-one-short"])
    assert result["found"] == "does not apply"
    assert "needs a decoder with a sliding window" in result["seen"]


def test_orders_are_probed_too() -> None:
    entry = Entry("tile-by-query-count", "plain", "", "order")
    (result,) = work.compute([entry], "cpu")
    assert result["found"] == "caught", result
    probed = {each.control for each in entries() if each.relation == "order"}
    of_kernels = {name for name, row in HERE.items() if in_kernels(row)}
    assert of_kernels - probed == {"other-warps", "other-architecture"}


def test_tasks_hold_every_entry_once() -> None:
    every = entries()
    tasks = matrix._tasks(every)
    assert sorted(map(str, (entry for task in tasks for entry in task))) == sorted(map(str, every))
    assert max(map(len, tasks)) <= matrix.TASK


def test_several_processes_share_the_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def compute(entries: list[Entry], device: str) -> list[dict[str, Any]]:
        return [
            {"control": e.control, "habitat": e.fixture, "workload": e.workload,
             "relation": e.relation}
            for e in entries
        ]  # fmt: skip

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
    assert len(one) == len(entries(["stale-slot"])) > 1
    assert seen[-1] == (len(one), len(one))

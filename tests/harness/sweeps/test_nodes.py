"""Cells on nodes that are lost, that lack something, that are none: everything but Ray."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sweep_rows
from sweep_rows import SWEEP, report, swept

from kvparity.core.errors import UnsupportedError
from kvparity.run.on_ray import cluster as clusters
from kvparity.run.on_ray.cluster import Cluster, LostError, RayTask
from kvparity.run.on_ray.request import NodeNeed, RayRequest
from kvparity.run.on_ray.sent import SentPart, SentTask
from kvparity.sweeps import nodes, on_node, reading
from kvparity.sweeps.carry_out import SweepWork, Swept
from kvparity.sweeps.planned import PlannedCell, planned
from kvparity.sweeps.process import CellEnd, CellSettings
from kvparity.sweeps.store import SweepStore
from kvparity_contracts.checks import TpInvariance
from kvparity_contracts.sweep_file import load_sweep


class Fakes(Cluster):
    """Nodes in this process. ``losing``: how often each cell is lost, by its version."""

    def __init__(self, there: int = 2, losing: dict[str, int] | None = None) -> None:
        super().__init__("")
        self.there, self.losing = there, losing or {}
        self.begun: list[tuple[NodeNeed, PlannedCell]] = []
        self.cancelled: list[RayTask] = []
        self.most = 0

    def places(self, need: NodeNeed) -> int:
        return 0 if need.gpus else self.there

    def begin(self, need: NodeNeed, common: object, items: Sequence[SentTask]) -> RayTask:
        cell = pickle.loads(items[0].call)
        self.begun.append((need, cell.planned))
        return iter([cell])

    def heard(self, running: Sequence[RayTask]) -> list[RayTask]:
        self.most = max(self.most, len(running))
        return list(running[-1:])  # the last to begin is the first to end

    def next(self, running: Any) -> SentPart:
        (cell,) = running
        version = cell.planned.cell.version
        if self.losing.get(version, 0):
            self.losing[version] -= 1
            raise LostError("NodeDiedError: it is gone")
        return on_node.verified(cell, "0123456789")

    def cancel(self, running: RayTask) -> None:
        self.cancelled.append(running)


@pytest.fixture
def cells(tmp_path: Path) -> tuple[PlannedCell, ...]:
    first = "priorities: [{dtype: bfloat16, version: new}]\n"
    return planned(load_sweep(swept(tmp_path, SWEEP + first)))


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> list[CellSettings]:
    found = []

    def runner(cell: PlannedCell, at: SweepStore, settings: CellSettings, _: object) -> CellEnd:
        found.append(settings)
        at.log(cell.id).write_text(f"in {at.folder}")
        end = sweep_rows.ended(cell, at, report(cell), 0)
        (at.run(cell.id) / "identity.json").write_text(json.dumps({"command": str(at.folder)}))
        return end

    monkeypatch.setattr(on_node, "run_cell", runner)
    monkeypatch.setattr(clusters, "resources", lambda: {"one": {"CPU": 2.0}})
    return found


def carried(
    cluster: Cluster,
    cells: tuple[PlannedCell, ...],
    store: SweepStore,
    budget_s: float | None = None,
    jobs: int | None = None,
) -> Swept:
    work = SweepWork(cells, store, CellSettings(jobs, 60.0), budget_s, lambda *_: None)
    return nodes.carry_out_on(cluster, RayRequest(wait_s=0.0), work)


def test_cells_come_back_whole_and_in_their_order(
    cells: tuple[PlannedCell, ...], store: SweepStore, ran: list[CellSettings]
) -> None:
    fakes = Fakes()
    found = carried(fakes, cells, store)
    assert [each for _, each in fakes.begun] == list(cells), "in order of priority"
    assert (cells[0].cell.dtype, cells[0].cell.version) == ("bfloat16", "new")
    assert fakes.most == 2, "as many as there are places"
    assert [each.planned.id for each in found.cells] == [each.id for each in cells]
    assert (found.verdict, {each.jobs for each in ran}) == ("holds", {1})
    for cell in cells:
        own = json.loads((store.run(cell.id) / "identity.json").read_text())["command"]
        assert own == str(store.folder), "of the driver's folder, not of the node's"
        assert store.log(cell.id).read_text() == f"in {store.folder}"
        assert store.contract(cell.id).read_bytes() == cell.given.raw
    again = Fakes()
    assert all(each.before for each in carried(again, cells, store).cells)
    assert again.begun == [], "what ended is never run again"


def test_a_lost_machine_is_counted_and_is_no_verdict(
    cells: tuple[PlannedCell, ...], store: SweepStore
) -> None:
    new, old = cells[0], next(each for each in cells if each.cell.version == "old")
    found = carried(Fakes(losing={"new": 4, "old": 3}), (new, old), store)
    assert [(each.planned.id, each.why) for each in found.left] == [
        (new.id, "its machine was lost 4 times, last: NodeDiedError: it is gone"),
    ]  # fmt: skip
    assert (found.verdict, store.ended(new.id)) == ("void", False)
    (row,) = reading.rows_in(store.folder)
    assert (row.cell, row.verdict, row.attempts) == (old.id, "holds", 4)
    carried(Fakes(), (new, old), store)
    assert sorted(each.attempts or 0 for each in reading.rows_in(store.folder)) == [1, 4]


def on(cell: PlannedCell, device: str) -> PlannedCell:
    place = replace(cell.cell, device=device)
    return replace(cell, given=replace(cell.given, cell=place))


def test_what_no_node_has_is_one_error_and_nothing_runs_on_a_cpu(
    cells: tuple[PlannedCell, ...], store: SweepStore, ran: list[CellSettings]
) -> None:
    with pytest.raises(UnsupportedError, match=r"has 1 CPU and 1 GPU.*it has one: 2 CPU"):
        carried(Fakes(), (on(cells[0], "cuda"),), store)
    with pytest.raises(UnsupportedError, match="found device cuda:1, expected cpu or cuda"):
        carried(Fakes(), (on(cells[0], "cuda:1"),), store)
    ranks = {"name": "ranks", "relation": "tp-invariance", "ranks": [1, 2], "reduce": "all_reduce"}
    cut = cells[0].given.contract.model_copy(update={"checks": (TpInvariance(**ranks),)})
    wide = replace(on(cells[0], "cuda"), given=replace(on(cells[0], "cuda").given, contract=cut))
    with pytest.raises(UnsupportedError, match=r"has 1 CPU and 2 GPU"):
        carried(Fakes(), (wide,), store)
    with pytest.raises(UnsupportedError, match=r"has 3 CPU"):
        carried(Fakes(there=0), cells, store, jobs=3)
    assert ran == []


def test_a_node_that_is_not_as_the_driver_ends_the_sweep(
    cells: tuple[PlannedCell, ...], store: SweepStore, tmp_path: Path, ran: list[CellSettings]
) -> None:
    file = tmp_path / "pair.py"
    file.write_text("here")
    task = on_node.sent(cells[0], CellSettings(1, 1.0), store)
    cell = pickle.loads(task.call)
    for files, python, words in (
        (((str(file), "ab"),), None, f"has a different {file} than the driver"),
        (((str(tmp_path / "no"), None),), None, f"has no {tmp_path / 'no'}: with --ray"),
        ((), Path("/no/python"), "has no interpreter /no/python: with --ray"),
    ):
        own = replace(cell, files=files, planned=replace(cell.planned, python=python))
        part = on_node.verified(own, "0123456789")
        assert part.error is not None
        assert words in part.error["words"]
    assert ran == []


def test_the_budget_ends_what_runs(cells: tuple[PlannedCell, ...], store: SweepStore) -> None:
    class Slow(Fakes):
        def heard(self, running: Sequence[RayTask]) -> list[RayTask]:
            return []

    slow = Slow()
    found = carried(slow, cells, store, budget_s=0.05)
    assert [each.why for each in found.left] == [
        *["the budget was spent while it ran"] * 2, *["the budget is spent"] * 2,
    ]  # fmt: skip
    assert (found.verdict, len(slow.cancelled)) == ("void", 2)

"""A sweep on Ray: cells as its tasks, as many at a time as the nodes take, in order of priority.

This process alone writes the store.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from kvparity.core.errors import UnsupportedError
from kvparity.core.isolation.pool import error_of
from kvparity.run.on_ray.cluster import Cluster, LostError, RayTask
from kvparity.run.on_ray.request import NodeNeed, RayRequest, need_of
from kvparity.run.on_ray.sent import SentPart
from kvparity.run.on_ray.workers import MOST_ATTEMPTS
from kvparity.sweeps import on_node
from kvparity.sweeps.carry_out import LeftCell, SweepWork, Swept, SweptCell, settled
from kvparity.sweeps.planned import PlannedCell
from kvparity.sweeps.process import CellEnd, CellSettings
from kvparity.sweeps.store import SweepStore


@dataclass
class _Sweeping:
    store: SweepStore
    settings: CellSettings
    cluster: Cluster
    request: RayRequest
    waiting: list[PlannedCell]
    running: dict[RayTask, PlannedCell] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    done: dict[str, SweptCell] = field(default_factory=dict)
    left: dict[str, LeftCell] = field(default_factory=dict)
    _absent: dict[NodeNeed, float] = field(default_factory=dict)
    """Since when no node has it."""

    def need(self, cell: PlannedCell) -> NodeNeed:
        """As many CPUs as the verification may use, or as its contract has ranks."""
        found = need_of(cell.cell.device, self.request.accelerator, cell.given.contract)
        return replace(found, cpus=max(found.cpus, self.settings.jobs or 1))

    def deal(self) -> None:
        """Begin what there are places for, the first first.

        Raises:
            UnsupportedError: no node could take a cell, and none came in time.
        """
        places = self._places()
        used = [self.need(each) for each in self.running.values()]
        for cell in tuple(self.waiting):
            if used.count(need := self.need(cell)) >= places[need]:
                continue
            used.append(need)
            self.waiting.remove(cell)
            if (self.store.run(cell.id) / "run.json").is_file():
                self.end(cell, CellEnd(0, ""))  # killed before its rows were written
                continue
            settings = replace(self.settings, jobs=self.settings.jobs or 1)
            task = on_node.sent(cell, settings, self.store)
            self.attempts[cell.id] = self.attempts.get(cell.id, 0) + 1
            self.running[self.cluster.begin(need, None, [task])] = cell

    def _places(self) -> dict[NodeNeed, int]:
        wanted = dict.fromkeys(map(self.need, [*self.waiting, *self.running.values()]))
        found = {need: self.cluster.places(need) for need in wanted}
        for need, places in found.items():
            since = self._absent.setdefault(need, time.monotonic())
            if places:
                del self._absent[need]
            elif time.monotonic() - since >= self.request.wait_s:
                raise self.cluster.absent(need, self.request.wait_s)
        return found

    def hear(self, task: RayTask) -> None:
        """What a task says.

        Raises:
            UnsupportedError, SubjectError: it cannot run there.
        """
        cell = self.running.pop(task)
        try:
            part = self.cluster.next(task)
        except LostError as error:
            if self.attempts[cell.id] < MOST_ATTEMPTS:
                self.waiting.insert(0, cell)
            else:
                words = f"its machine was lost {MOST_ATTEMPTS} times, last: {error}"
                self.left[cell.id] = LeftCell(cell, words)
            return
        assert part is not None, "a cell has one part"
        if part.error is not None:
            raise error_of(part.error)
        _kept(self.store, cell, part)
        self.end(cell, on_node.ended(part))

    def end(self, cell: PlannedCell, end: CellEnd) -> None:
        """Put it into the store, if that is its end."""
        found = settled(cell, self.store, end, self.attempts.get(cell.id, 1))
        if isinstance(found, SweptCell):
            self.done[cell.id] = found
        else:
            self.left[cell.id] = found

    def stop(self) -> None:
        """The budget is spent."""
        for task in self.running:
            self.cluster.cancel(task)
        for cells, why in (
            (self.running.values(), "the budget was spent while it ran"),
            (self.waiting, "the budget is spent"),
        ):
            self.left |= {cell.id: LeftCell(cell, why) for cell in cells}
        self.running, self.waiting = {}, []


def carry_out_on(cluster: Cluster, request: RayRequest, work: SweepWork) -> Swept:
    """As ``carry_out``, on the nodes of a cluster that was made with ``on_node.serve``.

    Raises:
        UnsupportedError: no node could take a cell, or one is not as the driver.
        RunFolderError: the store cannot be written.
        KeyboardInterrupt: from the terminal; what ended is in the store.
    """
    _named_devices(work.cells)
    start = time.monotonic()
    before = work.before()
    waiting = [each for each in work.cells if each.id not in before]
    sweeping = _Sweeping(work.store, work.settings, cluster, request, waiting)
    try:
        while sweeping.waiting or sweeping.running:
            if work.budget_s is not None and time.monotonic() - start >= work.budget_s:
                sweeping.stop()
                break
            sweeping.deal()
            words = ", ".join(str(each.cell) for each in sweeping.running.values())
            ended = len(before) + len(sweeping.done)
            work.tell(ended, len(work.cells), words or "waiting for a node")
            for task in cluster.heard([*sweeping.running]):
                sweeping.hear(task)
    finally:
        for task in sweeping.running:
            cluster.cancel(task)
    done = before | sweeping.done
    return Swept(
        tuple(done[each.id] for each in work.cells if each.id in done),
        tuple(sweeping.left[each.id] for each in work.cells if each.id in sweeping.left),
    )


def _named_devices(cells: Iterable[PlannedCell]) -> None:
    """Refuse a GPU by its number: which one a task gets is for Ray to choose."""
    for each in cells:
        if each.cell.device not in ("cpu", "cuda"):
            raise UnsupportedError(
                f"--ray: found device {each.cell.device}, expected cpu or cuda: Ray chooses the GPU"
            )


def _kept(store: SweepStore, cell: PlannedCell, part: SentPart) -> None:
    """The files of a cell, its run folder whole or not there."""
    store.contract(cell.id).write_bytes(cell.given.raw)
    folder = store.run(cell.id)
    begun = folder.with_name(f".{cell.id}.part")
    shutil.rmtree(begun, ignore_errors=True)
    for name, data in part.files:
        first, *rest = Path(name).parts
        if first == on_node.LOG:
            store.log(cell.id).write_bytes(data)
            continue
        if first != "run" or not rest or ".." in rest:
            raise UnsupportedError(f"a node sent a file {name!r}, which no cell has")
        target = begun.joinpath(*rest)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)
    if begun.is_dir():
        begun.replace(folder)

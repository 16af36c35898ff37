"""The pool of a run on Ray: its tasks go to nodes, what they give comes back, in any order."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar, cast

from kvparity.core.errors import SubjectError
from kvparity.core.isolation.pool import Pool, PoolTask, Tell, error_of
from kvparity.plan.cases import Unit
from kvparity.plan.results import CaseLine
from kvparity.report.lines import PathLine
from kvparity.report.run_dir import Evidence
from kvparity.run import worker
from kvparity.run.on_ray.cluster import Cluster, LostError, RayTask
from kvparity.run.on_ray.gathered import Gathered, PlannedTask, Undertaken, task_of
from kvparity.run.on_ray.request import NodeNeed, RayRequest
from kvparity.run.on_ray.sent import SentJob, SentTask
from kvparity_contracts.json_types import JsonValue

Result = TypeVar("Result")
MOST_ATTEMPTS = 4
"""Of one task, where machines are lost: what takes a machine down with it must come to an end."""
_FEASIBLE_S = 5.0
"""How often a run that waits looks whether a node could still take its tasks."""


class RayPool(Pool):
    """Computes on the nodes of a cluster, and writes what they find into the run's folder.

    Tasks are dealt to as many processes as the cluster has places, each a fresh one. A process
    serves its tasks one after the other, as one of the local pool does, and gives back what it has
    not begun when it has worked for ``share_s`` seconds: small units share what a process costs to
    start, a long one has its own.
    """

    def __init__(
        self, cluster: Cluster, request: RayRequest, need: NodeNeed, common: SentJob, tell: Tell
    ) -> None:
        self.cluster, self.request, self.need, self.tell = cluster, request, need, tell
        self.evidence = Evidence(Path(common.folder))
        self.gathered = Gathered(self.evidence, common.versions)
        self._common = cluster.put(common)
        self._running: dict[RayTask, Undertaken] = {}
        self._items: dict[int, SentTask] = {}

    def __exit__(self, *_: object) -> None:
        """Cancel what still runs."""
        for running in self._running:
            self.cluster.cancel(running)

    def finish(self) -> None:
        """Each task's process has ended before the task did."""

    def run(self, tasks: Iterable[PoolTask[Result]]) -> Iterator[Result]:
        """Compute all tasks; results come as they end.

        Raises:
            SubjectError: a task did, or was lost with its machine too often; see ``Apart.run``.
            UnsupportedError: no node could take a task, or one is not as the run asks for.
        """
        left = _LeftLines(self.evidence)
        waiting = deque(self._kept(number, each, left) for number, each in enumerate(tasks))
        places, looked = 0, -math.inf
        while waiting or self._running:
            if time.monotonic() - looked > _FEASIBLE_S:
                places = self.cluster.require(self.need, self.request.wait_s, self.tell)
                looked = time.monotonic()
            self._deal(waiting, min(places, self.request.jobs or places))
            for running in self.cluster.heard([*self._running]):
                for answer in self._hear(running, waiting):
                    yield cast(Result, answer)
            self.tell(f"{len(self._running)} tasks on Ray, which has {places} places")

    def _kept(self, number: int, task: PoolTask[Result], left: _LeftLines) -> PlannedTask:
        _, *rest = task.arguments  # the job goes once
        what = rest[0] if rest else task.function.__name__
        before: tuple[tuple[str, str], ...] = ()
        if task.function is worker.do_unit and isinstance(what, Unit):
            before = tuple(left.of(what))
        self._items[number] = SentTask(number, pickle.dumps((task.function, tuple(rest))), before)
        return task_of(number, what)

    def _deal(self, waiting: deque[PlannedTask], most: int) -> None:
        """Begin as many tasks of Ray as there are free places, each with its share."""
        while waiting and len(self._running) < most:
            step = most - len(self._running)
            dealt = [each for at, each in enumerate(waiting) if at % step == 0]
            rest = [each for at, each in enumerate(waiting) if at % step]
            waiting.clear()
            waiting.extend(rest)
            items = [self._items[each.number] for each in dealt]
            running = self.cluster.begin(self.need, self._common, items)
            self._running[running] = Undertaken({each.number: each for each in dealt})

    def _hear(self, running: RayTask, waiting: deque[PlannedTask]) -> Iterator[JsonValue]:
        """The answers of one message; what did not end waits again."""
        begun = self._running[running]
        try:
            part = self.cluster.next(running)
        except LostError as error:
            del self._running[running]
            self.gathered.lost(begun, str(error))
            for task in begun.tasks.values():
                if task.attempt > MOST_ATTEMPTS:
                    words = f"its machine was lost {MOST_ATTEMPTS} times, last: {error}"
                    raise SubjectError(f"{task.name}: {words}") from None
            waiting.extendleft(reversed(begun.tasks.values()))
            return
        if part is None:
            del self._running[running]
            waiting.extend(begun.tasks.values())  # time was up before they began
            return
        self.gathered.take(begun, part)
        if part.error is not None:
            raise error_of(part.error)
        for number, answer in part.answers:
            if begun.tasks.pop(number, None) is None:
                raise SubjectError("a node answered what it was not asked")
            del self._items[number]
            yield answer


class _LeftLines:
    """What an interrupted run left of its units, as lines of its files."""

    def __init__(self, evidence: Evidence) -> None:
        self._paths: dict[str, list[str]] = {}
        for value in evidence.lines(PathLine.file):
            self._paths.setdefault(str(value["unit"]), []).append(json.dumps(value))
        self._cases = {
            str(value["id"]): json.dumps(value) for value in evidence.lines(CaseLine.file)
        }

    def of(self, unit: Unit) -> Iterator[tuple[str, str]]:
        """(file, line) of one unit."""
        for line in self._paths.get(unit.id, ()):
            yield PathLine.file, line
        for case in unit.cases:
            if case.id in self._cases:
                yield CaseLine.file, self._cases[case.id]

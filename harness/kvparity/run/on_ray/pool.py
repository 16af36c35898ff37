"""A pool of a run on Ray: its tasks go to nodes, what they give comes back, in any order."""

from __future__ import annotations

import json
import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from kvparity.core.errors import SubjectError
from kvparity.core.isolation.pool import Pool, PoolTask, Tell, error_of
from kvparity.plan.cases import Unit
from kvparity.plan.results import CaseLine
from kvparity.report.lines import PathLine
from kvparity.report.run_dir import Evidence
from kvparity.run import worker
from kvparity.run.on_ray.cluster import LostError
from kvparity.run.on_ray.gathered import Gathered, PlannedTask, Undertaken, task_of
from kvparity.run.on_ray.sent import SentJob, SentPart, SentTask
from kvparity.run.on_ray.workers import MOST_ATTEMPTS, KeptWorker, Workers
from kvparity_contracts.json_types import JsonValue

Result = TypeVar("Result")
_AHEAD_S = 1.5
"""How many seconds of work a process is given ahead, where its tasks are shorter than that."""
_MOST_AHEAD = 64


@dataclass
class Dealt:
    """What the process of this pool on one worker computes. ``since`` it was given the first task
    of this phase, it has ``ended`` so many."""

    undertaken: Undertaken = field(default_factory=lambda: Undertaken({}))
    since: float = 0.0
    ended: int = 0

    @property
    def busy(self) -> bool:
        """Whether something is asked of it."""
        return bool(self.undertaken.tasks)

    def room(self, share: int) -> int:
        """How many more tasks it is given: one at a time, and more where they are short, but no
        more than its ``share`` of those that wait."""
        ahead = 0
        if self.ended:
            ahead = int(_AHEAD_S * self.ended / max(time.monotonic() - self.since, 1e-3))
        return 1 + min(ahead, share, _MOST_AHEAD) - len(self.undertaken.tasks)


class RayPool(Pool):
    """Computes on the nodes of a cluster, and writes what they find into the run's folder.

    Each worker has one process of the subject for this pool, from its first task on until
    :meth:`finish`: the same life as that of a process of the local pool. Tasks are dealt as those
    of the local pool are, to whatever process is free.
    """

    def __init__(self, workers: Workers, common: SentJob, tell: Tell) -> None:
        self.workers, self.tell = workers, tell
        self.number = workers.pool()
        self.evidence = Evidence(Path(common.folder))
        self.gathered = Gathered(self.evidence, common.versions)
        self._common = workers.cluster.put(common)
        self._dealt: dict[KeptWorker, Dealt] = {}
        self._items: dict[int, SentTask] = {}

    def __exit__(self, *_: object) -> None:
        """End what still runs, with the workers that it runs in."""
        self.workers.end([*self._dealt])

    def run(self, tasks: Iterable[PoolTask[Result]]) -> Iterator[Result]:
        """Compute all tasks; results come as they end.

        Raises:
            SubjectError: a task did, or was lost with its machine too often; see ``Apart.run``.
            UnsupportedError: no node could take a task, or one is not as the run asks for.
        """
        left = _LeftLines(self.evidence)
        waiting = deque(self._kept(number, each, left) for number, each in enumerate(tasks))
        for dealt in self._dealt.values():
            dealt.ended = 0
        while waiting or any(each.busy for each in self._dealt.values()):
            self.workers.look(self.tell)
            self._deal(waiting)
            for each, part in self.workers.heard():
                for answer in self._hear(each, part, waiting):
                    yield cast(Result, answer)
            busy = sum(each.busy for each in self._dealt.values())
            self.tell(f"{busy} processes on Ray, which has {self.workers.places} places")

    def finish(self) -> None:
        """Let the processes end by themselves, and see that they do. Of one that is lost with its
        machine, that is not seen.

        Raises:
            BadEndError: one did not end as it should.
        """
        kept = (
            self.workers.kept
        )  # of one that is not, another pool of the run heard that it is lost
        self._dealt = {each: dealt for each, dealt in self._dealt.items() if each in kept}
        for each in self._dealt:
            each.ray.finish(self.number)
        while self._dealt:
            for each, part in self.workers.heard():
                if isinstance(part, LostError) or self._take(each, part).over:
                    self._dealt.pop(each, None)

    def _kept(self, number: int, task: PoolTask[Result], left: _LeftLines) -> PlannedTask:
        _, *rest = task.arguments  # the job goes once
        what = rest[0] if rest else task.function.__name__
        before: tuple[tuple[str, str], ...] = ()
        if task.function is worker.do_unit and isinstance(what, Unit):
            before = tuple(left.of(what))
        self._items[number] = SentTask(number, pickle.dumps((task.function, tuple(rest))), before)
        planned = task_of(number, what)
        planned.elsewhere = task.elsewhere
        return planned

    def _deal(self, waiting: deque[PlannedTask]) -> None:
        """Give tasks to the processes that have room for them."""
        if not waiting:
            return
        busy = sum(each.busy for each in self._dealt.values())
        self.workers.want(min(self.workers.most, busy + len(waiting)))
        for nodes in {task.elsewhere for task in waiting if task.elsewhere}:
            self.workers.want(1, nodes)
        there = [each for each in self.workers.kept if each.there]
        by_load = [(self._dealt.get(each, Dealt()), each) for each in there]
        for dealt, each in sorted(by_load, key=lambda it: (it[0].busy, it[1] not in self._dealt)):
            if not dealt.busy and busy >= self.workers.most:
                continue
            given = self._given(waiting, each.node, dealt.room(-(-len(waiting) // len(there))))
            if given:
                busy += not dealt.busy
                self._give(each, dealt, given)

    def _given(self, waiting: deque[PlannedTask], node: str, room: int) -> list[PlannedTask]:
        """The next tasks for a process of a node."""
        found: list[PlannedTask] = []
        for task in tuple(waiting) if room > 0 else ():
            away = node in task.elsewhere and not self.workers.all_on(task.elsewhere)
            if not away:
                waiting.remove(task)
                found.append(task)
            if len(found) == room:
                break
        return found

    def _give(self, each: KeptWorker, dealt: Dealt, given: list[PlannedTask]) -> None:
        if not dealt.ended and not dealt.busy:
            dealt.since = time.monotonic()
        dealt.undertaken.tasks |= {task.number: task for task in given}
        self._dealt[each] = dealt
        each.ray.give(self.number, self._common, [self._items[task.number] for task in given])

    def _hear(
        self, each: KeptWorker, part: SentPart | LostError, waiting: deque[PlannedTask]
    ) -> Iterator[JsonValue]:
        """The answers of one message; what did not end waits again."""
        if isinstance(part, LostError):
            if (dealt := self._dealt.pop(each, None)) is not None:
                self._lost(dealt.undertaken, part)
                waiting.extendleft(reversed(dealt.undertaken.tasks.values()))
            return
        if self._take(each, part).over:
            raise SubjectError("a process on a node ended, and nobody had asked it to")
        for number, answer in part.answers:
            if not self._dealt[each].undertaken.answered(number):
                raise SubjectError("a node answered what it was not asked")
            self._dealt[each].ended += 1
            del self._items[number]
            yield answer

    def _take(self, each: KeptWorker, part: SentPart) -> SentPart:
        """Write what is in a message."""
        if part.pool != self.number:
            raise SubjectError("a node sent what is not of this pool")
        self.gathered.take(self._dealt[each].undertaken, part)
        if part.error is not None:
            raise error_of(part.error)
        return part

    def _lost(self, undertaken: Undertaken, error: LostError) -> None:
        self.gathered.lost(undertaken, str(error))
        for task in undertaken.tasks.values():
            if task.attempt > MOST_ATTEMPTS:
                words = f"its machine was lost {MOST_ATTEMPTS} times, last: {error}"
                raise SubjectError(f"{task.name}: {words}")


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

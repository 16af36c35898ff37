"""Nodes of a cluster in the process of a test: everything of a run on Ray but Ray."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kvparity.core.isolation.pool import Here, PoolTask
from kvparity.run import again, worker
from kvparity.run.on_ray import process_here
from kvparity.run.on_ray.cluster import Cluster, LostError, RayTask
from kvparity.run.on_ray.node import Serving
from kvparity.run.on_ray.request import NodeNeed
from kvparity.run.on_ray.sent import SentJob, SentPart, SentTask

Result = TypeVar("Result")
Change = Callable[[int, SentPart], SentPart]
"""Gets the number of the worker, from 1."""
_one_at_a_time = threading.Lock()
_numbers = count(1)
MOST_S = 60.0


class InThisProcess(Here):
    """What a node starts for a subject, without a process: each task begins it anew, for workers
    share this one. ``number``: in place of a process id."""

    def __init__(self, *_: object, first: Callable[[], None]) -> None:
        self.first, self.number = first, next(_numbers)

    def run(self, tasks: Iterable[PoolTask[Result]]) -> Iterator[Result]:
        with _one_at_a_time, pytest.MonkeyPatch.context() as patch:
            patch.setattr(again, "_place", self._placed(again._place))
            patch.setenv(again.NODE, threading.current_thread().name)
            self.first()
            found = list(super().run(tasks))
        yield from found

    def _placed(self, place: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda device: place(device).model_copy(update={"process": self.number})


class StandIn:
    """A worker of Ray that is none. ``given``: (pool, how many items), in turn."""

    def __init__(self, number: int, node: str) -> None:
        self.number, self.node = number, node
        self.folder = Path(tempfile.mkdtemp())
        self.serving = Serving(node, self.folder)
        self.said = deque([SentPart()])
        self.given: list[tuple[int, int]] = []
        self.finished: set[int] = set()
        self.lost = self.left = False
        self.parts: Any = self

    def give(self, pool: int, common: Any, items: Sequence[SentTask]) -> None:
        self.given.append((pool, len(items)))
        self.serving.give(pool, lambda: common, items)

    def finish(self, pool: int) -> None:
        self.finished.add(pool)
        self.serving.finish(pool)

    def leave(self) -> None:
        self.left = True

    def kill(self) -> None:
        self.left = True
        until = time.monotonic() + MOST_S
        while self.serving.busy and time.monotonic() < until:
            time.sleep(0.002)  # a thread has no end but its own
        for pool in {pool for pool, _ in self.given}:
            with suppress(KeyError):  # it had ended
                self.serving.finish(pool)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __next__(self) -> object:
        raise AssertionError("Nodes.next is asked")


class Nodes(Cluster):
    """Workers of this process, each heard once all that it was asked is done.

    The messages that are ``losing``, by their number from 0 or by what is in them, come without
    their answers, and are the last of their machine. All are changed before the driver sees them.
    ``there``: places by node.
    """

    def __init__(
        self,
        losing: Container[int] | Callable[[SentPart], bool] = (),
        change: Change = lambda worker, part: part,
        there: dict[str, int] | None = None,
    ) -> None:
        super().__init__("")
        self.losing, self.change = losing, change
        self.there = {"node-1": 1, "node-2": 1} if there is None else there
        self.needs: list[NodeNeed] = []
        self.begun: list[StandIn] = []
        self.messages = 0

    def places(self, need: NodeNeed) -> int:
        return sum(self.there.values())

    def nodes(self, need: NodeNeed) -> dict[str, int]:
        return dict(self.there)

    def put(self, common: SentJob) -> object:
        return common

    def worker(self, need: NodeNeed, node: str) -> StandIn:
        self.needs.append(need)
        self.begun.append(StandIn(len(self.begun) + 1, node))
        return self.begun[-1]

    def heard(self, running: Sequence[RayTask]) -> list[RayTask]:
        found: list[Any] = list(running)
        until = time.monotonic() + MOST_S
        while time.monotonic() < until:
            for each in found:
                if not each.said and not each.serving.busy:
                    each.said.extend(each.serving.new())
                if each.said or each.lost or each.left:
                    return [each]
            time.sleep(0.002)
        raise AssertionError("no worker has anything to say")

    def next(self, running: Any) -> SentPart | None:
        if running.lost:
            raise LostError("NodeDiedError: it is gone")
        if running.left:
            return None
        part: SentPart = running.said.popleft()
        if not part.pool:
            return part
        losing = self.losing
        if losing(part) if callable(losing) else self.messages in losing:
            running.lost = True
            part = replace(part, answers=(), over=False)
        self.messages += 1
        return self.change(running.number, part)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes compute in this process."""
    monkeypatch.setattr(process_here, "Apart", InThisProcess)
    monkeypatch.setattr(worker, "start", worker.settle)

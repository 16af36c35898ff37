"""Nodes of a cluster in the process of a test: everything of a run on Ray but Ray."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kvparity.core.isolation.pool import Here
from kvparity.run import worker
from kvparity.run.on_ray import node
from kvparity.run.on_ray.cluster import Cluster, LostError, RayTask
from kvparity.run.on_ray.request import NodeNeed
from kvparity.run.on_ray.sent import SentJob, SentPart, SentTask

Change = Callable[[int, SentPart], SentPart]
"""Gets the number of the task of Ray, from 1."""


class ProcessHere(Here):
    """What a node starts for a subject, without a process."""

    def __init__(self, *_: object, first: Callable[[], None]) -> None:
        first()


class Nodes(Cluster):
    """Serves one task after the other.

    The messages that are ``losing``, by their number from 0 or by what is in them, come without
    their answers, and are the last of their machine. All are changed before the driver sees them.
    """

    def __init__(
        self,
        losing: Container[int] | Callable[[SentPart], bool] = (),
        change: Change = lambda task, part: part,
        places: int = 2,
    ) -> None:
        super().__init__("")
        self.losing, self.change, self.there = losing, change, places
        self.begun: list[tuple[NodeNeed, int]] = []
        self.messages = 0
        self._lost: set[int] = set()
        self._numbers: dict[int, int] = {}

    def places(self, need: NodeNeed) -> int:
        return self.there

    def put(self, common: SentJob) -> object:
        return common

    def begin(self, need: NodeNeed, common: Any, items: Sequence[SentTask]) -> RayTask:
        self.begun.append((need, len(items)))
        running = node.serve(common, items, f"node-{len(self.begun)}")
        self._numbers[id(running)] = len(self.begun)
        return running

    def heard(self, running: Sequence[RayTask]) -> list[RayTask]:
        return list(running[:1])

    def next(self, running: Any) -> SentPart | None:
        number = self._numbers[id(running)]
        if number in self._lost:
            for _ in running:  # its thread comes to an end
                pass
            raise LostError("NodeDiedError: it is gone")
        if (part := next(running, None)) is None:
            return None
        losing = self.losing
        if losing(part) if callable(losing) else self.messages in losing:
            self._lost.add(number)
            part = replace(part, answers=())
        self.messages += 1
        return self.change(number, part)

    def cancel(self, running: Any) -> None:
        for _ in running:
            pass


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes compute in this process."""
    monkeypatch.setattr(node, "Apart", ProcessHere)
    monkeypatch.setattr(worker, "start", worker.settle)

"""The workers of Ray that one run keeps: one in each place that it uses, bound to its node."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from typing_extensions import Self

from kvparity.core.errors import SubjectError
from kvparity.run.on_ray.cluster import Cluster, LostError, RayWorker
from kvparity.run.on_ray.request import NodeNeed, RayRequest
from kvparity.run.on_ray.sent import SentPart

MOST_ATTEMPTS = 4
"""Of one task, where machines are lost: what takes a machine down with it must come to an end."""
_LOOK_S = 5.0
"""How often a run looks which nodes there are, and how long it waits for a worker to start before
it tries another place as well."""
_NOBODY_S = 0.25
"""How long a run waits where no worker is there to say anything."""
_LEAVE_S = 2.0
"""How long workers may take to end what they compute, and to take their folders away."""


@dataclass(eq=False)
class KeptWorker:
    """A worker on a node, since when, and whether it has said that it is there."""

    node: str
    ray: RayWorker
    since: float
    there: bool = False

    @property
    def late(self) -> bool:
        """Whether it has not come for so long that its place may be somebody else's."""
        return not self.there and time.monotonic() - self.since > _LOOK_S


class Workers:
    """Those of ``cluster``, at most one for each place of a node, as long as this lasts."""

    def __init__(self, cluster: Cluster, request: RayRequest, need: NodeNeed) -> None:
        self.cluster, self.request, self.need = cluster, request, need
        self.kept: list[KeptWorker] = []
        self._nodes: dict[str, int] = {}
        self._shunned: set[str] = set()
        self._looked = -math.inf
        self._failed: Counter[str] = Counter()
        self._why = ""
        self._pools = 0

    def __enter__(self) -> Self:
        """They start when they are wanted."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        self.end([*self.kept])

    def pool(self) -> int:
        """The number of another pool, from 1."""
        self._pools += 1
        return self._pools

    @property
    def places(self) -> int:
        """How many the nodes that were last seen alive take."""
        return sum(self._nodes.values())

    @property
    def most(self) -> int:
        """How many may compute at a time."""
        return min(self.places, self.request.jobs or self.places)

    def look(self, tell: Callable[[str], None]) -> None:
        """See which nodes there are, now and then.

        Raises:
            UnsupportedError: none could take a task, and none came in time.
            SubjectError: on none of them a worker stays until it says that it is there.
        """
        if time.monotonic() - self._looked > _LOOK_S:
            self._shunned.clear()
            self._nodes = self._usable()
            if not self._nodes:
                self.cluster.require(self.need, self.request.wait_s, tell)
                self._nodes = self._usable()
            if not self._nodes:
                raise SubjectError(
                    f"workers of Ray were lost {MOST_ATTEMPTS} times on each node before they "
                    f"computed anything, last: {self._why}"
                )
            self._looked = time.monotonic()

    def _usable(self) -> dict[str, int]:
        nodes = self.cluster.nodes(self.need)
        return {name: n for name, n in nodes.items() if self._failed[name] < MOST_ATTEMPTS}

    def want(self, count: int, elsewhere: frozenset[str] = frozenset()) -> None:
        """Start workers until there are so many on nodes other than ``elsewhere``, as far as there
        are places, where the fewest are first."""
        kept = [each for each in self.kept if not each.late and each.node not in elsewhere]
        for _ in range(count - len(kept)):
            taken = Counter(each.node for each in self.kept)
            free = [
                name for name, places in self._nodes.items()
                if taken[name] < places and name not in elsewhere | self._shunned
            ]  # fmt: skip
            if not free:
                return
            node = min(free, key=lambda name: taken[name])
            worker = self.cluster.worker(self.need, node)
            self.kept.append(KeptWorker(node, worker, time.monotonic()))

    def all_on(self, nodes: frozenset[str]) -> bool:
        """Whether there is no place on other nodes."""
        return self._nodes.keys() <= nodes

    def heard(self) -> Iterator[tuple[KeptWorker, SentPart | LostError]]:
        """What workers say within the next moment; one that is lost is gone."""
        for worker in self._speaking(self.kept):
            try:
                part = self.cluster.next(worker.ray.parts)
            except LostError as error:
                self._lost(worker, error)
                yield worker, error
                continue
            if part is None:
                raise SubjectError("a worker of Ray ended, and nobody had asked it to")
            if part.pool:
                yield worker, part
            else:
                worker.there = True
                self._failed[worker.node] = 0

    def end(self, workers: Sequence[KeptWorker]) -> None:
        """End some, with what they compute and all that a subject started there; their folders are
        taken away."""
        there = [each for each in workers if each.there and each in self.kept]
        for worker in there:
            worker.ray.leave()
        until = time.monotonic() + _LEAVE_S
        while there and time.monotonic() < until:
            for worker in self._speaking(there):
                with suppress(Exception):
                    if self.cluster.next(worker.ray.parts) is not None:
                        continue
                there.remove(worker)
        for worker in workers:
            self._kill(worker)

    def _kill(self, worker: KeptWorker) -> None:
        if worker in self.kept:
            self.kept.remove(worker)
        worker.ray.kill()

    def _speaking(self, workers: list[KeptWorker]) -> list[KeptWorker]:
        if not workers:
            time.sleep(_NOBODY_S)
            return []
        by_parts = {id(each.ray.parts): each for each in workers}
        found = self.cluster.heard([each.ray.parts for each in workers])
        return [by_parts[id(parts)] for parts in found]

    def _lost(self, worker: KeptWorker, error: LostError) -> None:
        self._kill(worker)
        if worker.there:
            self._looked = -math.inf
            return
        # Where Ray has not seen yet that a node is gone, the next look would be too early.
        self._shunned.add(worker.node)
        self._looked = time.monotonic()
        self._failed[worker.node] += 1
        self._why = str(error)

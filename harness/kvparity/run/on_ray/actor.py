"""The worker of Ray that a run keeps in one place of the cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from kvparity.run.on_ray.node import Serving, scratch
from kvparity.run.on_ray.sent import SentJob, SentPart, SentTask
from kvparity.run.options import NODE


class KvparityWorker:
    """An actor of Ray: two threads, one that sends, one that hears what is asked."""

    def __init__(self) -> None:
        import ray

        node = ray.get_runtime_context().get_node_id()
        os.environ[NODE] = node  # for the processes of the subject: hosts may have one name
        self._stay = ExitStack()
        self._serving = Serving(node, self._stay.enter_context(scratch()))

    def parts(self) -> Iterator[SentPart]:
        """All that is found, as long as the worker stays."""
        with self._stay:
            yield from self._serving.parts()

    def give(self, pool: int, common: Sequence[object], items: Sequence[SentTask]) -> None:
        """Compute items; ``common``: the reference of what all tasks of the pool share."""
        import ray

        def shared() -> SentJob:
            found: SentJob = ray.get(common[0])
            return found

        self._serving.give(pool, shared, items)

    def finish(self, pool: int) -> None:
        """Let the process of a pool end by itself."""
        self._serving.finish(pool)

    def leave(self) -> None:
        """Send no more."""
        self._serving.leave()

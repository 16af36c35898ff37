"""The machines of a run on Ray, as a verification asks for them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import cast

from typing_extensions import Self

from kvparity.core import versions
from kvparity.core.environment import CudaEnvironment, Environment
from kvparity.core.errors import UnsupportedError
from kvparity.core.isolation.pool import Pool, PoolTask, Tell
from kvparity.core.own_source import source_digest
from kvparity.run.jobs import Jobs
from kvparity.run.on_ray import begin
from kvparity.run.on_ray.cluster import Cluster
from kvparity.run.on_ray.pool import RayPool
from kvparity.run.on_ray.request import RayRequest, need_of
from kvparity.run.on_ray.sent import NodeFound, SentJob
from kvparity.run.on_ray.sources import sources_of
from kvparity.run.on_ray.workers import Workers
from kvparity.run.pools import Locally, Pools, Surroundings
from kvparity.run.worker import Job
from kvparity_contracts.loader import LoadedContract

_ALONE = ("server", "sides")
_LOOKING_S = 600.0


class OnRay(Pools):
    """The nodes of ``cluster``, which is connected. ``loaded``: what is verified.

    Workers of Ray stay for all pools of the run, from the first task until this ends.
    """

    def __init__(self, cluster: Cluster, request: RayRequest, loaded: LoadedContract) -> None:
        self.cluster, self.request, self.loaded = cluster, request, loaded
        self._setting: Environment | None = None
        self._workers: Workers | None = None
        self._stay = ExitStack()

    def __enter__(self) -> Self:
        """Workers start when there is something to compute."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all workers."""
        self._stay.__exit__(kind, error, trace)

    def seen(self, job: Job) -> Surroundings:
        """What a node runs with; on a CPU, this process, which every node must be like."""
        kind = job.contract.subject.kind
        if kind in _ALONE:
            raise UnsupportedError(
                f"a subject of kind {kind} runs in one process, which is asked for everything; "
                "leave out --ray"
            )
        if job.device == "cpu":
            found = Locally().seen(job)
        else:
            there = cast(NodeFound, self._ask(job, begin.looked))
            about = CudaEnvironment.model_validate(there["environment"])
            found = Surroundings(about, there["tiles"])
        self._setting = found.setting
        return found

    def tiles(self, job: Job) -> dict[str, object]:
        """Checked on a node; on a CPU, here."""
        if job.device == "cpu":
            return Locally().tiles(job)
        return cast(dict[str, object], self._ask(job, begin.checked_tiles))

    def jobs(self, job: Job, asked: int | None) -> Jobs:
        """The cluster's places, as there are now; fewer where fewer are asked for."""
        if asked is not None:
            return Jobs(asked, "as asked for, on Ray")
        places = self.cluster.places(need_of(job.device, self.request.accelerator, job.contract))
        return Jobs(places, "places of the Ray cluster")

    def open(self, job: Job, count: Jobs, timeout: float, tell: Tell) -> Pool:
        """What the cluster has places for, whatever it had before."""
        return self._open(job, timeout, tell)

    def _ask(self, job: Job, function: Callable[[Job], object]) -> object:
        with self._open(job, _LOOKING_S, lambda words: None) as pool:
            (found,) = pool.run([PoolTask(function, (job,))])
            pool.finish()
        return found

    def _open(self, job: Job, timeout: float, tell: Tell) -> RayPool:
        subject = job.contract.subject
        checkpoint = getattr(subject, "checkpoint", None)
        setting = None if self._setting is None else self._setting.document()
        common = SentJob(
            job=pickle.dumps(job),
            folder=str(job.folder),
            versions=versions.versions(),
            source=source_digest(),
            setting=setting,
            sources=sources_of(self.loaded),
            needs=() if checkpoint is None else (str(job.base / checkpoint),),
            timeout=timeout,
        )
        if self._workers is None:
            need = need_of(job.device, self.request.accelerator, job.contract)
            workers = Workers(self.cluster, self.request, need)
            self._workers = self._stay.enter_context(workers)
        return RayPool(self._workers, common, tell)

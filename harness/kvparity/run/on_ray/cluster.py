"""The connection to a Ray cluster: what it has, and the workers and tasks begun on it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from typing_extensions import Self

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.run.on_ray.actor import KvparityWorker
from kvparity.run.on_ray.request import AUTO, MISSING, NodeNeed
from kvparity.run.on_ray.sent import SentJob, SentPart, SentTask

_LOOK_S = 0.25


class LostError(Exception):
    """A machine, or the process of Ray on it, is gone with what it computed."""


class RayTask(Protocol):
    """A task that was begun: an iterator of references, as Ray has it."""

    def __next__(self) -> object:
        """The reference of the next part."""
        ...


class RayWorker(Protocol):
    """A worker of Ray that stays; see ``KvparityWorker``. ``parts``: what it sends."""

    parts: RayTask

    def give(self, pool: int, common: object, items: Sequence[SentTask]) -> None:
        """Ask it to compute items; ``common`` is what :meth:`Cluster.put` gave."""
        ...

    def finish(self, pool: int) -> None:
        """Ask it to let the process of a pool end."""
        ...

    def leave(self) -> None:
        """Ask it to send no more; its parts end."""
        ...

    def kill(self) -> None:
        """End it and its processes at once."""
        ...


class Cluster:
    """A Ray cluster that this process drives."""

    def __init__(
        self, address: str, serve: Callable[..., Iterator[SentPart]] | None = None
    ) -> None:
        """``serve``: what a task runs, of who begins tasks."""
        self.address, self._function = address, serve
        self._ours = False

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            UnsupportedError: Ray is not installed, or there is no such cluster.
        """
        if self.address.startswith("ray://"):
            raise UnsupportedError(
                f"--ray {self.address}: the driver must run on a node of the cluster, not behind "
                "Ray's client; run it there (ray job submit -- kvparity verify ... --ray)"
            )
        try:
            import ray
        except ImportError:
            raise UnsupportedError(MISSING) from None
        if not ray.is_initialized():
            try:
                with _own_signals():
                    ray.init(self.address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError) as error:
                where = "here" if self.address == AUTO else f"at {self.address}"
                words = " ".join(str(error).split())[:300]
                raise UnsupportedError(
                    f"no Ray cluster {where} that this process can join ({words}); start one with: "
                    "ray start --head"
                ) from error
            self._ours = True
        if self._function is not None:
            task = ray.remote(max_calls=1, max_retries=0, num_returns="streaming")
            self._task = task(self._function)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it; what was begun ends."""
        if self._ours:
            import ray

            with _own_signals():
                ray.shutdown()

    def places(self, need: NodeNeed) -> int:
        """How many tasks with this need the nodes that are alive could take at a time."""
        return sum(need.fits(there) for there in resources().values())

    def nodes(self, need: NodeNeed) -> dict[str, int]:
        """How many, by Ray's id of each node that could take one."""
        import ray

        alive = {each["NodeID"]: each["Resources"] for each in ray.nodes() if each["Alive"]}
        return {name: fits for name, there in alive.items() if (fits := need.fits(there))}

    def require(self, need: NodeNeed, wait_s: float, tell: Callable[[str], None]) -> int:
        """The places, once there is one.

        Raises:
            UnsupportedError: none came within ``wait_s``.
        """
        until = time.monotonic() + wait_s
        while not (places := self.places(need)):
            if time.monotonic() >= until:
                raise self.absent(need, wait_s)
            tell(f"waiting for a node with {need}")
            time.sleep(_LOOK_S)
        return places

    def absent(self, need: NodeNeed, wait_s: float) -> UnsupportedError:
        """That no node with this need came."""
        there = [f"{name}: {_words(each)}" for name, each in resources().items()]
        return UnsupportedError(
            f"no node of the Ray cluster has {need}, which each task takes, and none came "
            f"within {wait_s:g} s; it has {'; '.join(there) or 'no node'}"
        )

    def begin(self, need: NodeNeed, common: object, items: Sequence[SentTask]) -> RayTask:
        """Begin a task; ``common`` is what :meth:`put` gave."""
        task = self._task.options(scheduling_strategy="SPREAD", name="kvparity", **_options(need))
        found: RayTask = task.remote(common, tuple(items))
        return found

    def worker(self, need: NodeNeed, node: str) -> RayWorker:
        """Start a worker on a node, and nowhere else."""
        return _Actor(need, node)

    def put(self, common: SentJob) -> object:
        """Keep what all tasks share where nodes find it."""
        import ray

        return ray.put(common)

    def heard(self, running: Sequence[RayTask]) -> list[RayTask]:
        """Those that have something to say, within the next moment."""
        import ray

        found: list[RayTask] = ray.wait(list(running), num_returns=1, timeout=_LOOK_S)[0]
        return found

    def next(self, running: RayTask) -> SentPart | None:
        """The next part of a task; None at its end.

        Raises:
            LostError: the machine or the process of Ray is gone.
            SubjectError: the task could not run; in Ray's words.
        """
        import ray
        from ray import exceptions

        try:
            found: SentPart = ray.get(next(running))
        except StopIteration:
            return None
        except exceptions.OutOfMemoryError as error:
            words = " ".join(str(error).split())[:300]
            raise SubjectError(
                f"Ray ended the task, for the node ran out of memory: {words}"
            ) from None
        except (
            exceptions.WorkerCrashedError,
            exceptions.RayActorError,
            exceptions.ActorUnschedulableError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
            exceptions.LocalRayletDiedError,
        ) as error:
            if getattr(error, "actor_init_failed", False):
                raise _unable(error) from None
            raise LostError(
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from None
        except exceptions.RayTaskError as error:
            raise _unable(error) from None
        except exceptions.RayError as error:
            raise SubjectError(f"Ray: {' '.join(str(error).split())[:300]}") from None
        return found

    def cancel(self, running: RayTask) -> None:
        """End a task; its process ends with its worker."""
        import ray

        with suppress(Exception):
            ray.cancel(running, force=True)


class _Actor:
    """Ray neither starts it again nor asks it twice, so that no attempt goes uncounted."""

    def __init__(self, need: NodeNeed, node: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(node, soft=False)
        remote = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(KvparityWorker)
        self._actor = remote.options(scheduling_strategy=here, **_options(need)).remote()
        self.parts: RayTask = self._actor.parts.options(num_returns="streaming").remote()

    def give(self, pool: int, common: object, items: Sequence[SentTask]) -> None:
        self._actor.give.remote(pool, (common,), tuple(items))

    def finish(self, pool: int) -> None:
        self._actor.finish.remote(pool)

    def leave(self) -> None:
        self._actor.leave.remote()

    def kill(self) -> None:
        import ray

        with suppress(Exception):
            ray.kill(self._actor, no_restart=True)


def _unable(error: Exception) -> UnsupportedError:
    words = str(error).strip().splitlines()[-1]
    return UnsupportedError(
        f"a node cannot run tasks of kvparity ({words}); install the driver's versions on every "
        "node"
    )


def _options(need: NodeNeed) -> dict[str, object]:
    found: dict[str, object] = {"num_cpus": need.cpus, "num_gpus": need.gpus}
    return found if need.accelerator is None else found | {"accelerator_type": need.accelerator}


def resources() -> dict[str, dict[str, float]]:
    """By node that is alive: all that it has."""
    import ray

    return {
        f"{each['NodeManagerHostname']} ({each['NodeID'][:8]})": each["Resources"]
        for each in ray.nodes()
        if each["Alive"]
    }


def _words(resources: Mapping[str, float]) -> str:
    kinds = [name for name in resources if name in ("CPU", "GPU") or "accelerator" in name]
    return ", ".join(f"{resources[name]:g} {name}" for name in sorted(kinds)) or "nothing"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts handlers of its own in place of this process's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What runs in a worker of Ray: processes of the subject, watched, and what they write sent on.

The worker itself imports no torch and runs nothing of a subject. It stays for a whole run. Each
pool of the run has one process of the subject here, which lives as long as the pool: the same life
as that of a process of the local pool.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kvparity.run.on_ray.process_here import ProcessHere
from kvparity.run.on_ray.sent import SentJob, SentPart, SentTask

_PREFIX = "kvparity-ray-"
_PAUSE_S = 0.5
"""How long a line may lie before it is sent, where the driver waits for nothing."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this process's own. Those of processes that were killed are taken away."""
    top = Path(tempfile.gettempdir())
    for old in top.glob(f"{_PREFIX}*"):
        with suppress(OSError), (old / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Serving:
    """The processes of one worker, by the number of their pool. ``node``: Ray's id of this one.
    ``folder``: of the worker's own.

    :meth:`parts` runs in one thread, whatever is asked in another.
    """

    def __init__(self, node: str, folder: Path) -> None:
        self.node, self._top = node, folder
        self._pools: dict[int, ProcessHere] = {}
        self._news = threading.Event()
        self._left = False

    def give(self, pool: int, common: Callable[[], SentJob], items: Sequence[SentTask]) -> None:
        """Compute items, one after the other, behind those that were given before."""
        if pool not in self._pools:
            folder = self._top / str(pool)
            self._pools[pool] = ProcessHere(pool, self.node, folder, common, self._news)
        self._pools[pool].give(items)
        self._news.set()

    def finish(self, pool: int) -> None:
        """Let the process of a pool end by itself, once it has computed all."""
        self._pools[pool].finish()

    def leave(self) -> None:
        """No more will be asked."""
        self._left = True
        self._news.set()

    def parts(self) -> Iterator[SentPart]:
        """First that it is here; then what is computed: at once where the driver waits for it,
        else twice a second, all that came meanwhile in one message. Processes that are still there
        at the end are ended."""
        yield SentPart(pool=0)
        while not self._left:
            self._news.wait(_PAUSE_S if self.busy else None)
            self._news.clear()
            yield from self.new()
        for process in [*self._pools.values()]:
            process.end()

    def new(self) -> Iterator[SentPart]:
        """What came since."""
        for number, process in [*self._pools.items()]:
            part = process.part()
            if part != SentPart(pool=number):
                yield part
            if part.over:
                del self._pools[number]

    @property
    def busy(self) -> bool:
        """Whether anything is computed."""
        return any(each.busy for each in [*self._pools.values()])

"""Tasks spread over processes, each watched: it answers, it ends, or it takes too long."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Generic, Protocol, TypeVar, cast

from typing_extensions import Self

from kvparity.core.doing import LOADING
from kvparity.core.errors import OracleError, RunFolderError, SubjectError, UnsupportedError
from kvparity.core.isolation.child import Message
from kvparity.core.isolation.fit import MemoryFit
from kvparity.core.isolation.inside import no_exit
from kvparity.core.isolation.process import GRACE_S, Process

Result = TypeVar("Result")
Tell = Callable[[str], None]
"""Gets what is running, in words, several times a second."""
_LOOK_S = 0.25


@dataclass(frozen=True)
class PoolTask(Generic[Result]):
    """A function and its arguments; what it returns must be JSON. ``elsewhere``: names of machines
    that it is not for, where a pool has others."""

    function: Callable[..., Result]
    arguments: tuple[object, ...] = ()
    elsewhere: frozenset[str] = frozenset()


class InternalError(Exception):
    """A fault of kvparity's own in a process that it started; the words are all that came."""


class BadEndError(SubjectError):
    """Tasks are done, and what they gave is not believed: the process did not end as it should,
    or what it computes with was replaced.
    """


_ERRORS: dict[str, type[Exception]] = {
    "subject": SubjectError,
    "bad end": BadEndError,
    "oracle": OracleError,
    "unsupported": UnsupportedError,
    "folder": RunFolderError,
}


class Pool(Protocol):
    """Computes tasks; results come as they end."""

    def __enter__(self) -> Self:
        """Processes start with their first task."""
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, tasks: Iterable[PoolTask[Result]]) -> Iterator[Result]:
        """Compute all tasks; their results, as plain JSON values."""
        ...

    def finish(self) -> None:
        """No more tasks: let all end by themselves, and see that they do."""
        ...


class Here(Pool):
    """Computes in this process."""

    def __exit__(self, *_: object) -> None:
        """Nothing is to end."""

    def run(self, tasks: Iterable[PoolTask[Result]]) -> Iterator[Result]:
        """One task after the other."""
        for task in tasks:
            with no_exit():
                found = task.function(*task.arguments)
            yield found

    def finish(self) -> None:
        """Nothing runs."""


@dataclass
class _Child:
    process: Process
    busy: bool = False
    starting: bool = False
    number: int = -1
    since: float = 0.0

    def loaded(self, most: float) -> bool:
        """Whether its first task is done or is beyond loading, as far as it says so."""
        loading = self.process.doing().task.startswith(LOADING)
        began = self.process.doing().number > 1 or self.seconds() > most
        return not self.starting and (not self.busy or (began and not loading))

    def seconds(self) -> float:
        """How long its present task has been running."""
        doing = self.process.doing()
        if doing.number != self.number:
            self.number, self.since = doing.number, time.monotonic()
        return time.monotonic() - self.since


class Apart(Pool):
    """Computes in up to ``jobs`` processes, which load their subject once and serve many tasks.

    ``timeout``: seconds for one task, such as a case, a rollout or loading. ``first``: what every
    process does first. ``fit``: how many fit into memory; left out, that is not asked.
    """

    def __init__(
        self,
        jobs: int,
        timeout: float,
        tell: Tell,
        *,
        first: Callable[[], None] | None = None,
        grace: float = GRACE_S,
        fit: MemoryFit | None = None,
    ) -> None:
        self.fit = fit
        self.jobs, self.timeout, self.tell, self.grace = jobs, timeout, tell, grace
        self.first = first
        self._children: list[_Child] = []

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.process.kill()

    def run(self, tasks: Iterable[PoolTask[Result]]) -> Iterator[Result]:
        """Compute all tasks; results come as they end.

        Raises:
            SubjectError: a process died, was replaced, forked, or took longer than the limit; or
                what the task itself raised, as also ``UnsupportedError``, ``RunFolderError``.
            InternalError: it raised anything else.
        """
        waiting = deque(tasks)
        while waiting or any(child.busy for child in self._children):
            while waiting and (child := self._free(len(waiting))) is not None:
                task = waiting.popleft()
                child.process.ask(task.function, *task.arguments)
                child.busy, child.number = True, -1
            for child, message in self._heard():
                if "value" not in message:
                    raise error_of(message)
                if child.starting:
                    child.starting = False
                    continue
                child.busy = False
                yield cast(Result, message["value"])
            self._watch()

    def finish(self) -> None:
        """Let all processes end by themselves.

        Raises:
            BadEndError: one did not, in time, with all that the subject started in it.
        """
        until = time.monotonic() + self.grace
        for child in self._children:
            child.process.done()
        ended: set[int] = set()
        while len(ended) < len(self._children):
            for child, message in self._heard():
                if message.get("left"):
                    words = ", ".join(map(str, message["left"]))
                    raise BadEndError(
                        f"the subject left threads that go on after its last case: {words}; join "
                        "them, or make them daemons"
                    )
                if message.get("ended"):
                    ended.add(child.process.pid)
                elif "left" not in message:
                    raise BadEndError(str(error_of(message)))
            for child in self._children:
                doing, pid = child.process.doing(), child.process.pid
                if pid not in ended and child.process.closed:
                    self._settle(child)
                    raise BadEndError(f"{child.process.ended()} while {doing}")
                if pid not in ended and time.monotonic() > until:
                    words = f"did not end within {self.grace:g} s and was killed, while {doing}"
                    raise BadEndError(f"the subject's process {words}")

    def strike(self) -> None:
        """End all at once; another thread that waits for their answers sees that they are gone."""
        for child in self._children:
            child.process.strike()

    def _free(self, waiting: int) -> _Child | None:
        """A child for one of the tasks that wait. Until memory is measured, there is one alone."""
        if self.fit is not None and self._children and self.jobs > 1 and not self._measured():
            while len(self._children) <= min(waiting, self.fit.before(self.jobs) - 1):
                self._started()  # importing takes seconds, and little memory
            first = self._children[0]
            return None if first.busy else first
        idle = next((child for child in self._children if not child.busy), None)
        return self._started() if idle is None and len(self._children) < self.jobs else idle

    def _started(self) -> _Child:
        child = _Child(Process(self.grace), starting=self.first is not None)
        if self.first is not None:
            child.process.ask(self.first)
        self._children.append(child)
        return child

    def _measured(self) -> bool:
        """Whether it is known how many fit: the first child has loaded what it computes with."""
        assert self.fit is not None
        first = self._children[0]
        if not self.fit.known and first.loaded(GRACE_S):
            self.jobs = self.fit.measured(first.process.peak(), self.jobs)
            for child in self._children[self.jobs :]:
                child.process.kill()
            del self._children[self.jobs :]
        return self.fit.known

    def _heard(self) -> list[tuple[_Child, Message]]:
        """What children said within the next moment."""
        by_handle = {c.process.answers: c for c in self._children if not c.process.closed}
        soon = self.fit is not None and not self.fit.known
        ready = wait(list(by_handle), _LOOK_S / 5 if soon else _LOOK_S)
        return [
            (child, message)
            for handle, child in by_handle.items()
            if handle in ready
            for message in child.process.read()
        ]

    def _watch(self) -> None:
        """Say what runs; raise where a child is gone, or works too long."""
        running = [] if self.fit is None or not self.fit.words else [self.fit.words]
        for child in self._children:
            doing, seconds = child.process.doing(), child.seconds()
            child.process.peak()
            if child.process.dead() or child.process.closed:
                raise SubjectError(self._gone(child, str(doing)))
            if child.busy and seconds > self.timeout:
                raise SubjectError(
                    f"{doing}: not done after {self.timeout:g} s, the limit of --timeout"
                )
            if child.busy:
                running.append(f"{doing}" + (f" ({seconds:.0f} s)" if seconds >= 1 else ""))
        self.tell("; ".join(running))

    def _gone(self, child: _Child, doing: str) -> str:
        """How a child that does not answer any more ended, in words."""
        left = [] if child.process.closed else child.process.read_rest()
        for message in left:
            if "forked" in message or "error" in message:
                return str(error_of(message))
        if not self._settle(child):
            child.process.kill()
            return (
                "the subject closed the pipes of its process, or put another program in its place "
                f"(exec): {doing}"
            )
        return f"{child.process.ended()}: {doing}"

    @staticmethod
    def _settle(child: _Child) -> bool:
        """Whether a child that closed its pipe is gone, waiting a moment for it."""
        for _ in range(20):
            if child.process.dead():
                return True
            time.sleep(0.05)
        return False


def message_of(error: Exception) -> Message:
    """What a process says of an error, for :func:`error_of` in another."""
    kind = next((name for name, each in _ERRORS.items() if type(error) is each), "internal")
    return {"error": kind, "words": str(error), "trace": str(getattr(error, "trace", ""))}


def error_of(message: Message) -> Exception:
    """The error that a process told."""
    if "forked" in message:
        return SubjectError(
            f"{message['forked']}: the subject forked its process, and the copy returned; "
            "end it by os._exit, or start another program"
        )
    kind, words = message.get("error"), str(message.get("words"))
    if kind in _ERRORS:
        found = _ERRORS[kind](words)
        if isinstance(found, SubjectError):
            found.trace = str(message.get("trace", ""))
        return found
    if kind == "internal":
        return InternalError(words)
    return SubjectError("the subject wrote into the pipe that kvparity's processes use")

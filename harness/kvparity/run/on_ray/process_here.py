"""One process of the subject on a node, and what it writes there."""

from __future__ import annotations

import queue
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.core import versions
from kvparity.core.errors import RunFolderError, UnsupportedError
from kvparity.core.isolation.child import Message
from kvparity.core.isolation.pool import Apart, PoolTask, message_of
from kvparity.core.own_source import source_digest
from kvparity.run.on_ray import calls, settings
from kvparity.run.on_ray.sent import NodeAbout, NodeFound, SentJob, SentPart, SentTask

if TYPE_CHECKING:  # a worker of Ray starts without pydantic
    from kvparity_contracts.json_types import JsonValue

_LINES = ("paths.jsonl", "units.jsonl", "cases.jsonl", "controls.jsonl")
"""In the order in which they are sent: a case rests on its paths."""


class ProcessHere:
    """A process of a pool. A thread of its own starts it, asks it and ends it.

    ``common``: gives what all tasks of the pool share. ``news``: is set where there is something
    that the driver waits for.
    """

    def __init__(
        self,
        pool: int,
        node: str,
        folder: Path,
        common: Callable[[], SentJob],
        news: threading.Event,
    ) -> None:
        self.pool, self.node, self.top, self._news = pool, node, folder, news
        self.run = folder / "run"
        """The run folder of this process."""
        self._common = common
        self._asked: queue.SimpleQueue[SentTask | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._given = 0
        self._about: NodeAbout | None = None
        self._answers: list[tuple[int, JsonValue]] = []
        self._error: Message | None = None
        self._over = False
        self._apart: Apart | None = None
        self._lines: list[tuple[str, str]] = []
        self._offsets: dict[str, int] = {}
        self._folder = ""
        threading.Thread(target=self._compute, name=node, daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether something is computed."""
        return self._given > 0 and not self._over

    def give(self, items: Sequence[SentTask]) -> None:
        """Compute these, too."""
        with self._lock:
            self._given += len(items)
        for item in items:
            self._asked.put(item)

    def finish(self) -> None:
        """No more will be asked."""
        self._asked.put(None)

    def end(self) -> None:
        """End the process, and what it started, at once."""
        if self._apart is not None:
            self._apart.strike()

    def part(self) -> SentPart:
        """What is new. Answers are taken before lines, so that an answer's lines are all there."""
        with self._lock:
            about, self._about = self._about, None
            answers, self._answers = tuple(self._answers), []
            over, error = self._over, self._error
            self._look()
            lines, self._lines = tuple(self._lines), []
            files = tuple(self._files())
        if over:
            shutil.rmtree(self.top, ignore_errors=True)
        return SentPart(about, files, lines, answers, error, self.pool, over)

    def _compute(self) -> None:
        try:
            with self._writing():
                (self.run / "failures").mkdir(parents=True)
            common = self._common()
            self._folder = common.folder
            self._sound(common)
            with self._writing():
                sources = self._sources(common)
            first = partial(calls.begin, common.job, str(self.run), sources)
            with Apart(1, common.timeout, lambda words: None, first=first) as pool:
                self._apart = pool
                (found,) = pool.run([PoolTask(calls.look)])
                about = self._place(found, common)
                with self._lock:
                    self._about = about
                self._news.set()
                while (item := self._asked.get()) is not None:
                    self._before(item)
                    (answer,) = pool.run([PoolTask(calls.call, (item.call,))])
                    self._answered(item.number, answer)
                pool.finish()
        except Exception as error:
            told = message_of(error)
            told["words"] = self._as_on_driver(told["words"])
            self._error = told
        self._over = True
        self._news.set()

    def _answered(self, number: int, answer: JsonValue) -> None:
        """Keep an answer; where nothing is left to do, the driver waits for it."""
        with self._lock:
            self._answers.append((number, answer))
            self._given -= 1
            idle = not self._given
        if idle:
            self._news.set()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise ``RunFolderError`` where this node's own folder cannot be written."""
        try:
            yield
        except OSError as error:
            words = f"{self._name()}: {self.top} could not be written: {error.strerror}"
            raise RunFolderError(words) from error

    def _sound(self, common: SentJob) -> None:
        """Raise ``UnsupportedError`` where this node is not as the driver."""
        wrong = (
            settings.other_versions(common.versions, versions.versions())
            or settings.other_source(common.source, source_digest())
            or settings.not_there(common.needs)
        )
        if wrong is not None:
            raise UnsupportedError(f"{self._name()} {wrong}")

    def _place(self, found: NodeFound, common: SentJob) -> NodeAbout:
        """Where it runs, if that is as the run asks for.

        Raises:
            UnsupportedError: it is not.
        """
        wanted, there = common.setting, found["environment"]
        if wanted is not None and (wrong := settings.unlike(wanted, there)) is not None:
            raise UnsupportedError(f"{self._name()} {wrong}")
        device = str(there["device_name"])
        return NodeAbout(self.node, socket.gethostname(), device, found["uuid"])

    def _name(self) -> str:
        return f"node {socket.gethostname()} ({self.node[:8]})"

    def _sources(self, common: SentJob) -> dict[str, str]:
        """By path on the driver: the copy here."""
        copies = {}
        for source in common.sources:
            copy = self.top / "sources" / source.path.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.text)
            copies[source.path] = str(copy)
        return copies

    def _before(self, item: SentTask) -> None:
        """Lay down what an interrupted run left of a task, which the driver has."""
        if not item.before:
            return
        with self._lock:
            self._look()
            for file, line in item.before:
                with (self.run / file).open("a") as opened:
                    opened.write(line + "\n")
            kept = list(self._lines)
            self._look()
            self._lines = kept

    def _as_on_driver(self, words: str) -> str:
        words = words.replace(str(self.run), self._folder)
        return words.replace(str(self.top / "sources"), "")

    def _look(self) -> None:
        """Read the whole lines that were written since."""
        for name in _LINES:
            path = self.run / name
            if not path.is_file():
                continue
            with path.open("rb") as opened:
                opened.seek(self._offsets.get(name, 0))
                text = opened.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offsets[name] = self._offsets.get(name, 0) + len(whole)
            self._lines += [
                (name, self._as_on_driver(line.decode())) for line in whole.splitlines()
            ]

    def _files(self) -> list[tuple[str, bytes]]:
        """The files that are there, which are taken away: a line names each once."""
        found = []
        for path in sorted(self.run.rglob("*")):
            unfinished = path.name.startswith(".") or ".part" in path.name  # as safetensors begins
            if path.name in _LINES or unfinished or not path.is_file():
                continue
            found.append((str(path.relative_to(self.run)), path.read_bytes()))
            path.unlink()
        return found

"""What runs in a Ray task: one process for the subject, watched, and what it writes sent on.

The Ray worker itself imports no torch and runs nothing of a subject. Each task has a worker of its
own (``max_calls=1``), and so a fresh process of the subject.
"""

from __future__ import annotations

import fcntl
import queue
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from kvparity.core import versions
from kvparity.core.errors import UnsupportedError
from kvparity.core.isolation.pool import Apart, PoolTask, message_of
from kvparity.run.on_ray import calls, settings
from kvparity.run.on_ray.sent import NodeAbout, NodeFound, SentJob, SentPart, SentTask

_LINES = ("paths.jsonl", "units.jsonl", "cases.jsonl", "controls.jsonl")
"""In the order in which they are sent: a case rests on its paths."""
_PREFIX = "kvparity-ray-"
_PAUSE_S = 0.5
"""How long a line may lie before it is sent."""


def serve(common: SentJob, items: Sequence[SentTask], node: str) -> Iterator[SentPart]:
    """Compute items, one after the other; ``node``: Ray's id of this one.

    An item without an answer at the end was not begun: time was up.
    """
    name = f"node {socket.gethostname()} ({node[:8]})"
    wrong = settings.other_versions(common.versions, versions.versions()) or settings.not_there(
        common.needs
    )
    if wrong is not None:
        yield SentPart(error=message_of(UnsupportedError(f"{name} {wrong}")))
        return
    with scratch() as folder:
        yield from _Serving(common, node, name, folder).parts(items)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this task's own. Those of tasks that were killed are taken away."""
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


@dataclass
class _Serving:
    common: SentJob
    node: str
    name: str
    top: Path
    _heard: queue.SimpleQueue[SentPart | None] = field(default_factory=queue.SimpleQueue)
    """What the process answered; None: it is over."""
    _offsets: dict[str, int] = field(default_factory=dict)
    _files: set[Path] = field(default_factory=set)

    @property
    def run(self) -> Path:
        """The run folder of this task."""
        return self.top / "run"

    def parts(self, items: Sequence[SentTask]) -> Iterator[SentPart]:
        """What is computed, as it comes."""
        (self.run / "failures").mkdir(parents=True)
        sources = self._keep_sources()
        for item in items:
            for file, line in item.before:
                with (self.run / file).open("a") as opened:
                    opened.write(line + "\n")
        self._written()  # which the driver has
        thread = threading.Thread(target=self._compute, args=(items, sources), daemon=True)
        thread.start()
        heard: SentPart | None = SentPart()
        while heard is not None:
            try:
                heard = self._heard.get(timeout=_PAUSE_S)
            except queue.Empty:
                heard = SentPart()
            lines, files = self._written()
            part = replace(heard or SentPart(), lines=lines, files=files)
            if part != SentPart():
                yield part
        thread.join()

    def _compute(self, items: Sequence[SentTask], sources: dict[str, str]) -> None:
        """In a thread: the one process of the subject computes, and what ended is told."""
        common, until = self.common, time.monotonic() + self.common.share_s
        first = partial(calls.begin, common.job, str(self.run), sources)
        try:
            with Apart(1, common.timeout, lambda words: None, first=first) as pool:
                (found,) = pool.run([PoolTask(calls.look)])
                self._heard.put(SentPart(about=self._about(found)))
                for item in items:
                    (answer,) = pool.run([PoolTask(calls.call, (item.call,))])
                    self._heard.put(SentPart(answers=((item.number, answer),)))
                    if time.monotonic() > until:
                        break
                pool.finish()
        except Exception as error:
            told = message_of(error)
            told["words"] = self._as_on_driver(told["words"])
            self._heard.put(SentPart(error=told))
        self._heard.put(None)

    def _about(self, found: NodeFound) -> NodeAbout:
        """Where it runs, if that is as the run asks for.

        Raises:
            UnsupportedError: it is not.
        """
        wanted, there = self.common.setting, found["environment"]
        if wanted is not None and (wrong := settings.unlike(wanted, there)) is not None:
            raise UnsupportedError(f"{self.name} {wrong}")
        device = str(there["device_name"])
        return NodeAbout(self.node, socket.gethostname(), device, found["uuid"])

    def _keep_sources(self) -> dict[str, str]:
        """By path on the driver: the copy here."""
        copies = {}
        for source in self.common.sources:
            copy = self.top / "sources" / source.path.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.text)
            copies[source.path] = str(copy)
        return copies

    def _as_on_driver(self, words: str) -> str:
        words = words.replace(str(self.run), self.common.folder)
        return words.replace(str(self.top / "sources"), "")

    def _written(self) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, bytes], ...]]:
        """What was written since: whole lines, and the files that were there by then."""
        lines = [(name, line) for name in _LINES for line in self._lines(name)]
        files = []
        for path in sorted(self.run.rglob("*")):
            if path.name in _LINES or ".part" in path.name or not path.is_file():
                continue
            if path not in self._files:
                self._files.add(path)
                files.append((str(path.relative_to(self.run)), path.read_bytes()))
        return tuple(lines), tuple(files)

    def _lines(self, name: str) -> list[str]:
        path = self.run / name
        if not path.is_file():
            return []
        with path.open("rb") as opened:
            opened.seek(self._offsets.get(name, 0))
            text = opened.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offsets[name] = self._offsets.get(name, 0) + len(whole)
        return [self._as_on_driver(line.decode()) for line in whole.splitlines()]

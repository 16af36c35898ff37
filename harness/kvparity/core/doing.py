"""What this process is doing now, for whoever waits for it or finds it dead.

Words go into a page of memory that is shared with the parent, which reads it whenever it likes:
nothing is sent, no process waits, and the page is still there after a segmentation fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from mmap import mmap

SIZE = 4096
LOADING = "loading"
"""How the words of a task begin that loads what later ones compute with."""


@dataclass(frozen=True)
class Doing:
    """``number`` counts tasks; ``task``: a case, a control, loading; ``function``: in which."""

    number: int = 0
    task: str = ""
    function: str = ""

    def __str__(self) -> str:
        """Words, such as ``case c012: decode over long, in my_kernels.py:decode``."""
        where = f", in {self.function}" if self.function else ""
        return f"{self.task or 'starting'}{where}"


_now = Doing()
_page: mmap | None = None
_after: Callable[[], None] | None = None


def now() -> Doing:
    """What this process does."""
    return _now


def share(page: mmap, after: Callable[[], None]) -> None:
    """Show what this process does in ``page`` from now on. ``after``: called after every call."""
    global _page, _after
    _page, _after = page, after
    _set(_now)


def task(words: str) -> None:
    """A task begins; a time limit counts from here."""
    _set(Doing(_now.number + 1, words))


def placed(words: str) -> str:
    """``words`` behind the task that they describe, unless they begin with it."""
    task = _now.task
    return words if not task or words.startswith(task) else f"{task}: {words}"


@contextmanager
def calling(function: str) -> Iterator[None]:
    """Around the subject's own code: the innermost function is the one that is named."""
    before = _now.function
    _set(replace(_now, function=function))
    try:
        yield
    finally:
        if _after is not None:
            _after()
        _set(replace(_now, function=before))


def read(page: mmap) -> Doing | None:
    """What another process shows; None while it is being written, or where it is no such page."""
    try:
        return Doing(**json.loads(page[:SIZE].rstrip(b"\0")))
    except (ValueError, TypeError):
        return None


def _set(found: Doing) -> None:
    global _now
    _now = found
    if _page is not None:
        cut = replace(found, task=found.task[:600], function=found.function[:300])
        text = json.dumps(asdict(cut)).encode()[:SIZE]
        _page[: len(text) + 1] = text + b"\0"
        _page[len(text) + 1 :] = bytes(SIZE - len(text) - 1)

"""Workers end when the process that started them is gone."""

from __future__ import annotations

import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait
from os import _exit  # now: a subject may find another one later


def end_with_parent() -> None:
    """Watch the parent from a thread; call it once, first thing in a worker.

    A worker that waits for its next task holds both ends of the queue, so it would wait for ever,
    with all its memory, once the parent was killed.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    _exit(1)

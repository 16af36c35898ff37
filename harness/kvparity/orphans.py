"""Workers end when the process that started them is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from multiprocessing import parent_process
from multiprocessing.connection import wait
from os import _exit, getppid  # now: a subject may find others later

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Watch the parent from a thread; call it once, first thing in a worker.

    A worker that waits for its next task holds both ends of the queue, so it would wait for ever,
    with all its memory, once the parent was killed.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def end_with(parent: int) -> None:
    """End this process once ``parent``, which started it, is gone.

    On Linux the kernel sees to it, also while a kernel of the subject holds the interpreter's lock.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        _exit(1)
    threading.Thread(target=_poll, args=(parent,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    _exit(1)


def _poll(parent: int) -> None:
    while getppid() == parent:
        time.sleep(1)
    _exit(1)

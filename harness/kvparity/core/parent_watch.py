"""Workers end when the process that started them is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from os import _exit, getppid  # now: a subject may find others later

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """End this process once ``parent``, which started it, is gone.

    On Linux the kernel sees to it, also while a kernel of the subject holds the interpreter's lock.
    """
    die_with(parent)
    threading.Thread(target=_poll, args=(parent,), daemon=True).start()


def die_with(parent: int) -> None:
    """The part of it that the kernel sees to, and that also holds for what this process becomes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        _exit(1)


def _poll(parent: int) -> None:
    while getppid() == parent:
        time.sleep(1)
    _exit(1)

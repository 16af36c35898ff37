"""What a subject can do to its process, as functions that a child is asked to call. No torch."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from kvparity.core import doing
from kvparity.core.errors import RunFolderError, SubjectError, UnsupportedError
from kvparity_kernels.relied import GoneError


class _Odd:
    """Nothing that JSON knows."""


def work(fault: str = "", *arguments: Any) -> Any:
    """A case that does its fault inside a function of the subject."""
    doing.task("case c012: invariance of decode over long")
    with doing.calling("mine.py:decode"):
        return _FAULTS[fault](*arguments)


def _thread() -> None:
    threading.Thread(target=time.sleep, args=(60,), name="left-behind").start()


def _at_exit(function: Any, *arguments: Any) -> None:
    atexit.register(function, *arguments)


def _fork(comes_back: bool, after: float = 0.0) -> str:
    if os.fork() == 0:
        time.sleep(after)
        if not comes_back:
            os._exit(0)
    return "one of two" if comes_back else "whole"


def _deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def _raises(kind: str) -> None:
    kinds = {
        each.__name__: each
        for each in (SubjectError, UnsupportedError, RunFolderError, GoneError, ZeroDivisionError)
    }
    raise kinds.get(kind, KeyboardInterrupt)("words")


def _leaves_a_child() -> int:
    """A program that ignores what people end programs by, and goes on for a minute."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    return subprocess.Popen([sys.executable, "-c", code]).pid


_FAULTS = {
    "": lambda value=None: value,
    "exit": lambda: ctypes.CDLL(None).exit(0),
    "_exit": lambda: os._exit(0),
    "exec": lambda *program: os.execv(program[0], program),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "atexit": lambda: _at_exit(os._exit, 0),
    "atexit hangs": lambda: _at_exit(time.sleep, 60),
    "thread": _thread,
    "daemon": lambda: threading.Thread(target=time.sleep, args=(60,), daemon=True).start(),
    "forks": lambda: _fork(True),
    "forks late": lambda: _fork(True, 0.3),
    "forks well": lambda: _fork(False),
    "hangs": lambda: time.sleep(60),
    "deaf": _deaf,
    "raises": _raises,
    "closes": lambda: os.closerange(3, 256),
    "odd": _Odd,
    "writes": lambda: os.write(int(os.environ.get("KVPARITY_TEST_FD", "-1")), b"??\n"),
    "child": _leaves_a_child,
    "pid": os.getpid,
    "quiet": lambda: os.environ.get("TQDM_DISABLE"),
}

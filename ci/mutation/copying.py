"""Work in copies of this process, several at a time."""

from __future__ import annotations

import os
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
_NUMBER = struct.Struct("<i")

DIED, ENDLESS = "the process died", "did not end"
SURELY = 1 / 3
"""The unchanged code must end in this part of a limit: a busy machine makes no mutant endless."""


def spread(work: Sequence[T], copies: int, do: Callable[[T], None], until: float) -> None:
    """Give each piece of work to the next of ``copies`` processes that is free, until a time."""
    read, write = os.pipe()
    if os.fork() == 0:  # a pipe holds less than there may be
        os.close(read)
        with suppress(BrokenPipeError):
            for number in range(len(work)):
                os.write(write, _NUMBER.pack(number))
        os._exit(0)
    os.close(write)
    pids = []
    for _ in range(copies):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                while time.time() < until and (data := os.read(read, _NUMBER.size)):
                    do(work[_NUMBER.unpack(data)[0]])
                code = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            os._exit(code)
        pids.append(pid)
    os.close(read)
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    with suppress(ChildProcessError):
        os.waitpid(-1, 0)
    if any(ends):
        raise RuntimeError("a process that runs mutants failed: see above")


def asked(work: Callable[[], str], limit_s: float) -> str:
    """What ``work`` returns in a copy of this process; or that the copy died, or did not end.

    The copy has a folder for temporary files of its own, and all that it started ends with it.
    """
    folder = tempfile.mkdtemp(prefix="mutants-")
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        _copy(work, write, folder)
    with suppress(OSError):  # also here: else the end may come before the copy has its group
        os.setpgid(pid, pid)
    os.close(write)
    found, until = b"", time.monotonic() + limit_s
    while (left := until - time.monotonic()) > 0:
        if select.select([read], [], [], left)[0]:
            if not (data := os.read(read, 65536)):
                break
            found += data
            if data.endswith(b"\n"):  # the copy's own children may hold the pipe open
                break
    os.close(read)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if left <= 0:
        return ENDLESS
    return found.decode().rstrip("\n") if found else DIED


def _copy(work: Callable[[], str], pipe: int, folder: str) -> None:
    os.setpgid(0, 0)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = folder
    tempfile.tempdir = None
    try:
        found = work()
    except BaseException:
        found = "error: " + traceback.format_exc().replace("\n", " | ")
    os.write(pipe, found.encode() + b"\n")
    os.kill(os.getpid(), signal.SIGKILL)

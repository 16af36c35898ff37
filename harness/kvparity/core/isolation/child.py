"""The child's side: calls what it is asked to, and answers in lines of JSON.

What it needs is bound before a subject is imported, and the functions that end a process or write
to a pipe are the ones that were there then.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn, TypedDict

from kvparity.core import doing
from kvparity.core.errors import OracleError, RunFolderError, SubjectError, UnsupportedError
from kvparity.core.isolation.inside import here
from kvparity.core.parent_watch import end_with
from kvparity_kernels.relied import GoneError

if TYPE_CHECKING:  # a worker of Ray starts without pydantic
    from kvparity_contracts.json_types import JsonValue

_exit, _write, _getpid, _dumps = os._exit, os.write, os.getpid, json.dumps
DEAF = 117
"""The exit code of a process whose pipes were closed by the subject."""
_process = 0  # the child's id; 0 in a process that is none
_answers = -1
_pipes: tuple[int, ...] = ()
_known: set[int] = set()
COPY_S = 1.0
"""How long a process that is about to end waits for what a copy of it may still have to say."""


class Boot(TypedDict):
    """What a child is started with. ``fds``: of requests, answers and the shared page."""

    path: list[str]
    argv: list[str]
    parent: int
    grace: float
    fds: list[int]


class Message(TypedDict, total=False):
    """What a child says in one line of JSON; each has some of these, and ``value`` is a result."""

    value: JsonValue
    error: str
    """The kind of error; ``words`` and ``trace`` belong to it."""
    words: str
    trace: str
    forked: str
    left: list[str]
    ended: bool


def know(pid: int) -> None:
    """A copy of this process that kvparity made; it stays as long as this one."""
    _known.add(pid)


def leave() -> None:
    """This is a copy that kvparity made: it is no child any more, and closes the child's pipes.

    Who waits for their end must see it.
    """
    global _process, _pipes
    for handle in _pipes:
        os.close(handle)
    _process, _pipes = 0, ()


def main(given: Boot) -> NoReturn:
    """Serve until the parent asks for no more."""
    global _process, _answers, _pipes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _process = _getpid()
    requests, _answers, page = given["fds"]
    _pipes = (requests, _answers)
    for handle in given["fds"]:  # closed when the subject becomes another program: that is seen
        fcntl.fcntl(handle, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    end_with(given["parent"])
    doing.share(mmap(page, doing.SIZE), stop_a_copy)
    pipe, look, stop, tell = os.fdopen(requests, "rb", closefd=False), _unlooked, stop_a_copy, say
    with here():
        while (head := _read(pipe, 8)) and (request := _read(pipe, int.from_bytes(head, "big"))):
            found = _answer(*pickle.loads(request))
            stop()
            off = look()
            tell(found if off is None else {"error": "bad end", "words": f"{doing.now()}: {off}"})
            look = _watching() if look is _unlooked else look
    doing.task("ending the process, after all cases")
    stay = [each for each in threading.enumerate() if not each.daemon and each.is_alive()]
    stay = [each for each in stay if each is not threading.current_thread()]
    until = time.monotonic() + given["grace"] / 2
    for each in stay:
        each.join(max(0.0, until - time.monotonic()))
    say({"left": [each.name for each in stay if each.is_alive()]})
    with doing.calling("a function registered with atexit"):
        atexit._run_exitfuncs()
    _flush()
    stop_a_copy()
    _hear_copies()
    say({"ended": True})
    _exit(0)


def _hear_copies() -> None:
    """Wait until no copy runs that could come back from its call and say so, or for a moment."""
    until = time.monotonic() + COPY_S
    while _running() - _known and time.monotonic() < until:
        time.sleep(0.01)


def _running() -> set[int]:
    """The processes that this one started and that still run; none where /proc does not tell."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found |= {int(pid) for pid in task.read_text().split()}
    return {pid for pid in found if not _ended(pid)}


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def say(message: Message) -> None:
    """Tell the parent, in one line."""
    text = _dumps(message, allow_nan=False).encode() + b"\n"
    try:
        while text:
            text = text[_write(_answers, text) :]
    except OSError:
        _exit(DEAF)


def _read(pipe: BinaryIO, size: int) -> bytes:
    try:
        return pipe.read(size)
    except OSError:
        _exit(DEAF)


def _unlooked() -> str | None:
    """Before the first task nothing of a subject is here."""
    return None


def _watching() -> Callable[[], str | None]:
    """What sees that functions were replaced, once the first task has settled this process.

    The looks that are taken in between could be replaced themselves; this one is bound before a
    subject is imported.
    """
    if (settled := sys.modules.get("kvparity.core.environment")) is None:
        return _unlooked
    found: Callable[[], str | None] = settled.watching()
    return found


def stop_a_copy() -> None:
    """End this process if it is a copy that the subject made by ``fork``, and tell the parent.

    Both would go on here, and write every result twice.
    """
    if _process and _getpid() != _process:
        say({"forked": str(doing.now())})
        _exit(1)


def _answer(function: Callable[..., object], arguments: tuple[object, ...]) -> Message:
    try:
        return {"value": json.loads(_dumps(function(*arguments), allow_nan=False))}
    except SubjectError as error:
        kind = "oracle" if isinstance(error, OracleError) else "subject"
        return {"error": kind, "words": str(error), "trace": error.trace}
    except UnsupportedError as error:
        return {"error": "unsupported", "words": str(error)}
    except RunFolderError as error:
        return {"error": "folder", "words": str(error)}
    except GoneError as error:
        return {"error": "subject", "words": str(error)}
    except Exception as error:  # nothing that holds the subject's values goes any further
        if os.environ.get("KVPARITY_TRACEBACK"):
            traceback.print_exc()
        return {"error": "internal", "words": f"{type(error).__name__}: {error}"}
    except BaseException as error:
        words = f"{doing.now()}: the subject raised {type(error).__name__}: {error}"
        return {"error": "subject", "words": words}


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Closed, or full: what a subject says is no result.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()

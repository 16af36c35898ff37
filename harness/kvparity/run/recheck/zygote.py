"""Fresh processes for a worker: copies made of it before it has loaded a subject.

A new interpreter that imports torch takes seconds; a copy of a process that has imported it, and
nothing of the subject, takes milliseconds and knows as little. So a worker makes one copy of itself
before its first task. That one never loads a subject either: for each request it makes a copy of
its own, which computes, answers and ends.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any, NoReturn

from kvparity.core import doing
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.isolation import child
from kvparity.core.parent_watch import end_with

_exit, _fork, _wait, _getpid = os._exit, os.fork, os.waitpid, os.getpid


@dataclass(frozen=True)
class _Zygote:
    """The worker's ends of the pipes to its copy. ``owner``: the worker's process id."""

    owner: int
    requests: int
    answers: int


_mine: _Zygote | None = None


def start() -> None:
    """Make the copy; call it once, before anything of a subject is imported."""
    global _mine
    requests, ours = os.pipe()
    theirs, answers = os.pipe()
    worker = _getpid()
    if not (copy := _copied()):
        _mine = None
        os.close(ours)
        os.close(theirs)
        child.leave()
        end_with(worker)
        doing.share(mmap(-1, doing.SIZE), child.stop_a_copy)  # the worker's page is its own
        _serve(requests, answers)
    os.close(requests)
    os.close(answers)
    child.know(copy)
    _mine = _Zygote(worker, ours, theirs)


def here() -> bool:
    """Whether this process can ask for fresh ones."""
    return _mine is not None and _mine.owner == _getpid()


def ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns in a fresh process, as plain JSON values.

    Raises:
        SubjectError, UnsupportedError: what it raised; or the process ended without an answer.
    """
    if _mine is None:
        raise RuntimeError("start() comes first, in the process that asks")
    try:
        _send(_mine.requests, pickle.dumps((function, arguments)))
        found = json.loads(_receive(_mine.answers) or b'{"error": "the process is gone"}')
    except OSError as error:
        raise SubjectError(f"the subject closed the pipe to a fresh process: {error}") from error
    if "value" in found:
        return found["value"]
    words = f"in a fresh process that has not seen the other side: {found['error']}"
    raise UnsupportedError(words) if found.get("unsupported") else SubjectError(words)


def _serve(requests: int, answers: int) -> NoReturn:
    """One copy for each request, until the worker ends."""
    while request := _receive(requests):
        if not (copy := _copied()):
            _compute(request, answers)
        _, status = _wait(copy, 0)
        if code := os.waitstatus_to_exitcode(status):
            how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
            words = {"error": f"the subject ended the process ({how})"}
            _send(answers, json.dumps(words).encode())
    _exit(0)


def _compute(request: bytes, answers: int) -> NoReturn:
    end_with(os.getppid())
    try:
        function, arguments = pickle.loads(request)
        found = json.dumps({"value": function(*arguments)}, allow_nan=False)
    except UnsupportedError as error:
        found = json.dumps({"error": str(error), "unsupported": True})
    except BaseException as error:  # a subject's exit, too
        found = json.dumps({"error": f"{type(error).__name__}: {error}"})
    _send(answers, found.encode())
    _exit(0)


def _copied() -> int:
    """Fork: the copy's process id, 0 in the copy.

    The one thread that runs beside this one watches the parent, and holds no lock.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads at a fork
        return _fork()


def _send(handle: int, text: bytes) -> None:
    text = len(text).to_bytes(8, "big") + text
    while text:
        text = text[os.write(handle, text) :]


def _receive(handle: int) -> bytes:
    """One message; empty where the other side is gone."""
    return _exactly(handle, int.from_bytes(_exactly(handle, 8), "big"))


def _exactly(handle: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = os.read(handle, min(size - len(found), 1 << 20))
        if not part:
            return b""
        found += part
    return found

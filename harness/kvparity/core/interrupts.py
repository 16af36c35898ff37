"""Ctrl-C, SIGTERM and SIGHUP where libraries make something else of them.

A KeyboardInterrupt inside of a library is not always one outside: pydantic-core makes a SchemaError
of one that comes while it builds a model, and torch aborts the process where one comes while its
C++ calls Python to import a module. So an interruption is noted before it is raised, and a process
that is only kvparity's ends at once where it comes during an import: no import of ours leaves
anything half written.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from kvparity.core.exit_codes import ExitCode

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IMPORT = "<frozen importlib._bootstrap>"
_came = _ours = False


def came() -> bool:
    """An interruption came since :func:`heard` began."""
    return _came


@contextmanager
def heard(*, own_process: bool) -> Iterator[None]:
    """Note each interruption of what runs inside, before KeyboardInterrupt is raised.

    ``own_process``: no other code needs this process, so that it may be ended. Only signals
    that raise KeyboardInterrupt anyway are noted, and only in the main thread.
    """
    global _came, _ours
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [each for each in _SIGNALS if signal.getsignal(each) is signal.default_int_handler]
    if numbers:
        _came, _ours = False, own_process
    for number in numbers:
        signal.signal(number, _note)
    try:
        yield
    finally:
        for number in numbers:
            if signal.getsignal(number) is _note:
                signal.signal(number, signal.default_int_handler)


Handler = Callable[[int, FrameType | None], object] | int | None
"""What :func:`signal.signal` takes and gives back."""


def handler(number: int) -> Handler:
    """Who answers a signal, as it is outside of :func:`heard`."""
    found = signal.getsignal(number)
    return signal.default_int_handler if found is _note else found


def say() -> None:
    """Tell the user that the command was interrupted; stderr may be gone."""
    with suppress(AttributeError, OSError, ValueError):
        print("kvparity: interrupted", file=sys.stderr)


def end() -> NoReturn:
    """End the process here, with what was printed.

    Where Ctrl-C came while C code ran Python code, the interpreter would remember it, and kill
    itself by SIGINT after all is said.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(ExitCode.INTERRUPTED)


def _note(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    if _ours and _importing(frame):
        say()
        end()
    signal.default_int_handler(number, frame)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False

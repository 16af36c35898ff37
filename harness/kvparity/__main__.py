"""``kvparity``, and ``python -m kvparity``: the process of a command, from first line to last.

Ctrl-C, SIGTERM and SIGHUP have one answer in all of it: exit code 130, and no traceback. What takes
time to import is imported where they have it already.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

_ENDS = (signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130  # as exit_codes has it


def command() -> NoReturn:
    """Run the command line, and end the process."""
    for number in _ENDS:
        if signal.getsignal(number) is signal.SIG_DFL:  # else whoever started us wants it so
            signal.signal(number, signal.default_int_handler)
    try:
        from kvparity.cli.main import main

        code = main()
        _nothing_left()
    except KeyboardInterrupt:
        _nothing_left()
        with suppress(OSError, ValueError):
            if sys.stderr is not None:
                print("kvparity: interrupted", file=sys.stderr)
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        _end(code)
    sys.exit(code)


def _end(code: int) -> NoReturn:
    """End the process here.

    Where Ctrl-C came while C code ran Python code, the interpreter would remember it, and kill
    itself by SIGINT after all is said.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def _nothing_left() -> None:
    """The answer is given, and what the interpreter still does is not to be interrupted."""
    for number in (signal.SIGINT, *_ENDS):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    command()

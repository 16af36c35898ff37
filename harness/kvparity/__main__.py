"""``kvparity``, and ``python -m kvparity``: the process of a command, from first line to last.

Ctrl-C, SIGTERM and SIGHUP have one answer in all of it: exit code 130, and no traceback. What takes
time to import is imported where they have it already.
"""

from __future__ import annotations

import atexit
import signal
import sys
from typing import NoReturn

from kvparity.core import interrupts
from kvparity.core.exit_codes import ExitCode

_ENDS = (signal.SIGTERM, signal.SIGHUP)


def command() -> NoReturn:
    """Run the command line, and end the process."""
    for number in _ENDS:
        if signal.getsignal(number) is signal.SIG_DFL:  # else whoever started us wants it so
            signal.signal(number, signal.default_int_handler)
    try:
        from kvparity.cli.main import main

        code = main(own_process=True)
        _nothing_left()
    except KeyboardInterrupt:
        _nothing_left()
        interrupts.say()
        code = ExitCode.INTERRUPTED
    if code == ExitCode.INTERRUPTED:
        atexit._run_exitfuncs()
        interrupts.end()
    sys.exit(code)


def _nothing_left() -> None:
    """The answer is given, and what the interpreter still does is not to be interrupted."""
    for number in (signal.SIGINT, *_ENDS):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    command()

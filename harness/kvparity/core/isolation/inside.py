"""Whether foreign code may run in this very process.

From the command line it never does: it could end the process with any exit code, or hang it. Where
the caller is a test, or is itself the process that was started for the subject, it may.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from kvparity.core.errors import SubjectError

_inside = False


def inside() -> bool:
    """Whether subjects run here."""
    return _inside


@contextmanager
def here(yes: bool = True) -> Iterator[None]:
    """Let subjects run in this process; what they do to it is then the caller's risk."""
    global _inside
    before, _inside = _inside, yes
    try:
        yield
    finally:
        _inside = before


@contextmanager
def no_exit() -> Iterator[None]:
    """Let no code end this process by ``os._exit``: a subject could choose our exit code.

    A process that a subject forks may. Not needed where subjects run in other processes.
    """
    process, end = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            end(status)
        raise SubjectError(f"the subject ended the process by os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end

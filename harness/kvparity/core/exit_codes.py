"""Exit codes of every command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a finished process says.

    ``HOLDS`` 0: everything asked for was verified. ``DIFFERS`` 1: bits or limits broke.
    ``USAGE`` 2: bad command line, contract or run folder. ``ERROR`` 3: the subject, the backend or
    kvparity itself failed. ``VOID`` 5: nothing, or not enough, was really verified.
    ``INTERRUPTED`` 130: Ctrl-C, SIGTERM or SIGHUP, by the shells' convention.
    """

    HOLDS = 0
    DIFFERS = 1
    USAGE = 2
    ERROR = 3
    VOID = 5
    INTERRUPTED = 130


def of_verdict(verdict: str) -> ExitCode:
    """The exit code of a verdict word."""
    return {
        "holds": ExitCode.HOLDS,
        "differs": ExitCode.DIFFERS,
        "void": ExitCode.VOID,
        "error": ExitCode.ERROR,
    }[verdict]

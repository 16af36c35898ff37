"""What can go wrong on purpose; each has an exit code. Imports no torch."""

from __future__ import annotations


class SubjectError(Exception):
    """The subject broke its promise: wrong shape or dtype, an exception, memory. Exit code 3.

    ``trace``: the traceback of the subject's own exception, for the run folder; empty without one.
    """

    trace: str = ""

    @classmethod
    def of(cls, who: str, error: BaseException, more: str = "") -> SubjectError:
        """``who`` raised ``error``; ``more`` is said of it."""
        from kvparity.core.raised import told, trace

        found = cls(f"{who} raised {told(error)}{more}")
        found.trace = trace(error)
        return found


class OracleError(SubjectError):
    """The subject has no float64 values to compare with: an error of accuracy cases alone."""


class UnsupportedError(Exception):
    """A path, setting or checkpoint that cannot be used, in words for a person. Exit code 2."""


class RunFolderError(Exception):
    """The run folder cannot be used as asked. Exit code 2."""

"""Output that cannot be written is an error in itself, whichever verdict was found.

A full disk, a reader that left and a stream that was closed do not interrupt a command: it goes on
and keeps its evidence, says what it can where it can, and ends with exit code 3.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast


class Stream:
    """Passes everything on, and remembers why something could not be written."""

    def __init__(self, name: str, stream: TextIO | None) -> None:
        self.name = name
        self.problem: OSError | ValueError | None = None
        if stream is None:  # it was closed from the start
            self.problem = ValueError(f"{name} is closed")
            stream = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
        self._stream = stream

    def write(self, text: str) -> int:
        """As any stream; what is lost is lost."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        """As any stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._failed(error)

    def close(self) -> None:
        """Nobody who was lent the stream may close it."""

    def checked(self) -> OSError | ValueError | None:
        """Why something was not, or could not be, written; None: all was."""
        self.flush()
        if self.problem is None:
            with suppress(AttributeError, ValueError):  # a stream in memory has no descriptor
                handle = self._stream.fileno()
                try:
                    os.write(handle, b"")  # of a full device, also nothing cannot be written
                except OSError as error:
                    self._failed(error)
        return self.problem

    def _failed(self, error: OSError | ValueError) -> None:
        self.problem = self.problem or error
        with suppress(OSError, AttributeError, ValueError):
            # What is still in a buffer goes nowhere, also when the interpreter ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[tuple[Stream, Stream]]:
    """stdout and stderr as such streams, for the time of one command."""
    _occupy()
    before = sys.stdout, sys.stderr
    out, err = Stream("stdout", before[0]), Stream("stderr", before[1])
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out, err
    finally:
        sys.stdout, sys.stderr = before


def unwritten(out: Stream, err: Stream) -> bool:
    """Whether something was lost; said on stderr, where that is still heard."""
    problem = out.checked()
    if problem is not None and not isinstance(problem, BrokenPipeError):  # `| head` is no news
        words = problem.strerror if isinstance(problem, OSError) else "it is closed"
        err.write(f"kvparity: stdout could not be written: {words}\n")
    return err.checked() is not None or problem is not None


def _occupy() -> None:
    """Let no file that is opened later take the place of a standard stream that is closed."""
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != handle:
                os.dup2(nowhere, handle)
                os.close(nowhere)

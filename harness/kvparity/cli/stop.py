"""How a command ends without a result: one sentence, an exit code; a document with ``--json``.

A verb raises :class:`StopError`, or lets through what has one meaning in every verb.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kvparity.cli import progress, say
from kvparity.core import plots
from kvparity.core.errors import RunFolderError, SubjectError, UnsupportedError
from kvparity.core.exit_codes import ExitCode
from kvparity_contracts.problems import ContractError

_NEEDED = ("torch", "triton", "numpy", "safetensors", "networkx")
"""Packages that a verb imports, where another is no fault of the installation."""


class StopError(Exception):
    """Why there is no result. ``prefix`` is said before the message, to people alone."""

    def __init__(
        self, message: str, code: ExitCode = ExitCode.USAGE, *, prefix: str = "kvparity: "
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.prefix = message, code, prefix

    def told(self, *, json: bool) -> ExitCode:
        """Say why on stderr, with ``--json`` also as the one document; the exit code."""
        progress.line("")
        say.tell(f"{self.prefix}{self.message}", file=sys.stderr)
        if json:
            say.document(say.problem(self.code, self.message))
        return self.code


@contextmanager
def ends(
    *kinds: type[Exception], code: ExitCode = ExitCode.USAGE, words: str = ""
) -> Iterator[None]:
    """Where one of ``kinds`` ends the command with what it says, behind ``words``."""
    try:
        yield
    except kinds as error:
        raise StopError(f"{words}{error}", code) from error


def drawable(what: str) -> None:
    """End the command where ``what``, a picture that was asked for, cannot be drawn."""
    if (words := plots.missing(what)) is not None:
        raise StopError(words, ExitCode.ERROR)


def of(error: BaseException) -> StopError | None:
    """How the command ends that raised ``error``; None: it is a fault of kvparity's own."""
    from kvparity_kernels.relied import GoneError

    if isinstance(error, StopError):
        return error
    if isinstance(error, ContractError):
        return StopError(str(error), prefix="")
    if isinstance(error, UnsupportedError | RunFolderError):
        return StopError(str(error))
    if isinstance(error, SubjectError | GoneError):
        return StopError(f"error: {error}", ExitCode.ERROR)
    if isinstance(error, ModuleNotFoundError) and error.name in _NEEDED:
        words = f"error: {error.name} is not installed; pip install {error.name}"
        return StopError(f"{words} (kvparity doctor lists what is there)", ExitCode.ERROR)
    return None

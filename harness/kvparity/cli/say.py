"""With ``--json`` a command says one document on stdout; all else that is printed goes to stderr.

A subject may print, also past Python: while a command runs, its stdout is stderr, and its document
comes last.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from kvparity.cli import colour

RUNNING = "kvparity: running "
"""How a line begins that reports progress; it is no part of how the command ended."""


def tell(text: object, *, file: TextIO | None = None) -> None:
    """Print text for people, by default to stdout.

    It may hold names and messages of others: every line is made :func:`plain <plain_lines>`.
    """
    from kvparity_contracts.plain import plain_lines  # takes its time: see main

    script(plain_lines(str(text)), file=file)


def script(text: str, *, file: TextIO | None = None, end: str = "\n") -> None:
    """Print text as it is, which is kvparity's own; in colour where that is shown."""
    stream = sys.stdout if file is None else file
    shown = colour.painted(text) if _current is None and colour.wanted(stream) else text
    print(shown, end=end, file=stream)


class Said:
    """The document of one command, and what it wrote to stderr."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.heard = ""

    def finished(self, code: int) -> str:
        """The document: the command's own, or where it has none, what went wrong."""
        if self.text is not None:
            return self.text
        lines = self.heard.replace("\r\033[K", "\n").strip().splitlines()
        lines = [line for line in lines if not line.startswith(RUNNING)]
        return json.dumps(problem(code, "\n".join(lines).removeprefix("kvparity: ")))


def problem(code: int, words: str) -> dict[str, object]:
    """The document where there is no other."""
    return {"schema_version": 1, "verdict": "error", "exit_code": code, "error": words}


class _Unclosed:
    """A stream that passes everything on, but for being closed by what it is lent to."""

    def __init__(self, stream: TextIO, said: Said | None = None) -> None:
        self._stream, self._said = stream, said

    def write(self, text: str) -> int:
        if self._said is not None:
            self._said.heard += text
        return self._stream.write(text)

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


_current: Said | None = None
_quiet = False


@contextmanager
def manner(*, quiet: bool) -> Iterator[None]:
    """How much a command says."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def quiet() -> bool:
    """Whether a command says what it came to alone."""
    return _quiet


def document(value: object, *, indent: int | None = None) -> None:
    """Say the document: at the end of the command, or at once if none is collected."""
    text = json.dumps(value, allow_nan=False, indent=indent)
    if _current is None:
        print(text)
    else:
        _current.text = text


def result(args: argparse.Namespace, value: object, text: str, *, beside: bool = True) -> None:
    """The text for people; with ``--json`` the document, and ``beside`` it the text on stderr."""
    if _quiet:
        text = text.partition("\n")[0]
    if args.json:
        document(value)
    if beside or not args.json:
        tell(text, file=sys.stderr if args.json else sys.stdout)


def passed_on(text: str) -> bool:
    """Take a document that another process wrote, if somebody listens for one."""
    if _current is not None:
        _current.text = text.strip()
    return _current is not None


@contextmanager
def listening() -> Iterator[Said]:
    """Keep stdout for the document."""
    global _current
    said, before = Said(), _current
    out, err = sys.stdout, sys.stderr
    _current = said
    sys.stderr, sys.stdout = cast(TextIO, _Unclosed(err, said)), cast(TextIO, _Unclosed(err))
    try:
        with _as_stderr(out):
            yield said
    finally:
        sys.stdout, sys.stderr, _current = out, err, before


@contextmanager
def _as_stderr(out: TextIO) -> Iterator[None]:
    """Let file descriptor 1, which child processes inherit, lead where 2 leads."""
    with suppress(AttributeError, ValueError, OSError):  # None where it was closed from the start
        out.flush()
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)

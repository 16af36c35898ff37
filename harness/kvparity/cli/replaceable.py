"""Files that a command writes for people: refused before anything is computed, never lost."""

from __future__ import annotations

from pathlib import Path

from kvparity.cli.stop import StopError, ends

PAGE = "HTML page", (b"<!doctype html", b"<html")
"""What a page is, and how one begins."""


def may_replace(option: str, path: Path, what: str, heads: tuple[bytes, ...]) -> None:
    """End the command where ``path`` holds anything but ``what``, which begins with ``heads``.

    Empty files and devices may be written, too.
    """
    if not path.parent.is_dir():
        raise StopError(f"{option} {path}: there is no folder {path.parent}")
    if not path.exists() or not (path.is_file() or path.is_dir()):  # /dev/null
        return
    head = b""
    if path.is_file():
        with ends(OSError, words=f"{option}: "), path.open("rb") as file:
            head = file.read(64).lstrip().lower()
    if path.is_dir() or (head and not head.startswith(heads)):
        raise StopError(f"{option} {path} exists and is no {what}; expected a new file")


def write(option: str, path: Path, text: str) -> None:
    """Write a file that was asked for; the command ends where it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StopError(f"{option} {path} cannot be written: {error.strerror}") from error

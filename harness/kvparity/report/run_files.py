"""Reading the files of a run folder: bounded, line by line, and never anything but JSON."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kvparity.core.errors import RunFolderError
from kvparity.core.values import Json

MOST_BYTES = 1 << 26
"""A line of evidence is shorter. A longer one is not ours, and is not read into memory."""


def lines(path: Path, key: str | None) -> Iterator[tuple[int, Json]]:
    """Line number and value of every line; none if there is no such file.

    ``key``: what every value has. A last line without its end, left by an interruption, is no
    value.

    Raises:
        RunFolderError: no regular file, a line that is too long, or no JSON mapping with ``key``.
    """
    file = _opened(path)
    if file is None:
        return
    with file:
        for number in range(1, 1 << 62):
            line = file.readline(MOST_BYTES)
            if not line.endswith(b"\n"):
                if len(line) == MOST_BYTES:
                    raise _damaged(f"{path}:{number}", f"a line of over {MOST_BYTES} bytes")
                return
            yield number, value(line, key, f"{path}:{number}")


def whole(path: Path, key: str) -> Json:
    """The one JSON mapping that a file holds.

    Raises:
        RunFolderError: see ``lines``, or the file is missing.
    """
    file = _opened(path)
    if file is None:
        raise RunFolderError(f"{path} is missing")
    with file:
        text = file.read(MOST_BYTES)
    if len(text) == MOST_BYTES:
        raise _damaged(str(path), f"over {MOST_BYTES} bytes")
    return value(text, key, str(path))


def value(text: bytes, key: str | None, place: str) -> Json:
    """A JSON mapping that has ``key``.

    Raises:
        RunFolderError: it is something else; an editor was at it, or a disk failed.
    """
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise _damaged(place, "nested too deeply") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise _damaged(place, str(error)) from error
    if not isinstance(found, dict) or (key is not None and key not in found):
        raise _damaged(place, "no mapping" if key is None else f"no mapping with {key!r}")
    return found


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that an interruption left without its end.

    What is kept is written beside the file first, so that a second interruption loses nothing.
    """
    file = _opened(path)
    if file is None:
        return
    with file:
        size = file.seek(0, os.SEEK_END)
        end = _end_of_last_line(file, size)
        if end == size:
            return
        part = path.with_name(path.name + ".part")
        file.seek(0)
        with part.open("wb") as kept:
            left = end
            while left:
                left -= kept.write(file.read(min(left, 1 << 20)))
            kept.flush()
            os.fsync(kept.fileno())
    part.replace(path)


def _end_of_last_line(file: BinaryIO, size: int) -> int:
    """The offset behind the last newline, looked for from the end."""
    end = size
    while end:
        start = max(0, end - (1 << 16))
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _opened(path: Path) -> BinaryIO | None:
    """The file, None if there is none. A pipe or a device is refused before it is read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RunFolderError(f"{path} is not a regular file; use a new --run-dir")
    return os.fdopen(handle, "rb")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _damaged(place: str, what: str) -> RunFolderError:
    return RunFolderError(f"{place} is damaged ({what}); use a new --run-dir")

"""What a subject raised, as a file of the run folder: ``failures/<case or unit>.traceback.txt``."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from kvparity.core.errors import RunFolderError

_END = ".traceback.txt"
_MOST = 1 << 20
"""Characters of a traceback: of a longer one, the end is kept, which says most."""


def keep(folder: Path, name: str, text: str) -> Path:
    """Write the traceback of ``name``, a case or a unit, whole or not at all; where it is.

    Raises:
        RunFolderError: it cannot be written.
    """
    whole = folder / "failures" / (re.sub(r"[^\w.-]+", "-", name) + _END)
    part = whole.with_name(f"{whole.name}.part-{os.getpid()}")
    try:
        whole.parent.mkdir(exist_ok=True)
        part.write_text(text[-_MOST:], encoding="utf-8", errors="backslashreplace")
        part.replace(whole)
    except OSError as error:
        raise RunFolderError(f"{whole} could not be written: {error.strerror}") from error
    return whole


def in_folder(folder: Path) -> bool:
    """Whether there are any."""
    return any((folder / "failures").glob(f"*{_END}"))


def alone(path: Path) -> bool:
    """Whether ``path`` is a folder ``failures`` of nothing else, as a run leaves it that failed."""
    return (
        path.name == "failures"
        and path.is_dir()
        and all(each.name.endswith(_END) for each in path.iterdir())
    )


def drop(folder: Path) -> None:
    """Take them away: the run goes on, and may raise something else."""
    for path in (folder / "failures").glob(f"*{_END}"):
        with suppress(OSError):
            path.unlink()

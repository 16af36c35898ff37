"""The contract of a run: its file where that is as it was, else the copy that the run kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kvparity.core.errors import RunFolderError

FOLDER = "kept"
"""Of a run folder."""


def keep_file(folder: Path, name: str, raw: bytes) -> None:
    """Keep a file, whole or not at all; one that is there is left.

    Raises:
        RunFolderError: it cannot be written.
    """
    whole = folder / FOLDER / name
    if whole.exists():
        return
    part = whole.with_name(name + ".part")
    try:
        whole.parent.mkdir(exist_ok=True)
        part.write_bytes(raw)
        part.replace(whole)
    except OSError as error:
        raise RunFolderError(f"{whole} could not be written: {error.strerror}") from error


def contract_bytes(folder: Path, path: Path, sha: str) -> bytes:
    """What the contract's file held in the run.

    Raises:
        RunFolderError: it has changed, and there is no copy.
    """
    for file in (path, folder / FOLDER / f"contract{path.suffix}"):
        try:
            found = file.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(found).hexdigest() == sha:
            return found
    raise RunFolderError(
        f"{path} changed since the run, or is gone, and {folder} holds no copy of it as it was"
    )

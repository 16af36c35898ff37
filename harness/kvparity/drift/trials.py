"""Trials on disk: a run that was cut goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from kvparity.core.errors import UnsupportedError
from kvparity.drift.explain import FlipTrial


class _Line(TypedDict):
    of: str
    trial: FlipTrial


_LINE = TypeAdapter(_Line)


def fingerprint(recording: Path, *checkpoints: Path) -> str:
    """Of what trials are about: the recording's bytes, each checkpoint's config and its files."""
    made = hashlib.sha256()
    with recording.open("rb") as file:
        while block := file.read(1 << 20):
            made.update(block)
    for checkpoint in checkpoints:
        made.update((checkpoint / "config.json").read_bytes())
        for each in sorted(checkpoint.glob("*.safetensors")):
            facts = each.stat()
            made.update(f"{each.name} {facts.st_size} {facts.st_mtime_ns}".encode())
    return made.hexdigest()[:16]


def read(path: Path, of: str) -> list[FlipTrial]:
    """The trials in ``path`` that are about ``of``; none where there is no file.

    Raises:
        UnsupportedError: a line is no trial; the message names it.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            value = _LINE.validate_json(line)
        except ValidationError:
            raise UnsupportedError(
                f"{path}:{number} is no trial of kvparity drift: remove the line, or name another "
                "--trials"
            ) from None
        if value["of"] == of:
            found.append(value["trial"])
    return found


def append(path: Path, of: str, trial: FlipTrial) -> None:
    """One line, on the disk when this returns.

    Raises:
        UnsupportedError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"of": of, "trial": asdict(trial)}) + "\n")
    except OSError as error:
        raise UnsupportedError(f"--trials {path} cannot be written: {error.strerror}") from error

"""Cases that were tried, one a line of a file: an interruption loses none."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from pydantic import TypeAdapter, ValidationError

from kvparity.core.errors import RunFolderError
from kvparity.core.values import Json
from kvparity.smallest.search import TriedCase

_READ = TypeAdapter(tuple[str, TriedCase])


@dataclass
class TriedFile:
    """An open file of cases that were tried, by the key of each."""

    path: Path
    known: dict[str, TriedCase] = field(default_factory=dict)
    _out: TextIO | None = None

    @classmethod
    def open(cls, path: Path, about: Json) -> TriedFile:
        """Go on with a file that is ``about`` the same; begin it anew where it is not.

        Raises:
            RunFolderError: it cannot be read or written.
        """
        head = json.dumps(about, sort_keys=True)
        try:
            path.parent.mkdir(exist_ok=True)
            lines = path.read_bytes().splitlines() if path.exists() else []
            same = lines[:1] == [head.encode()]
            found = cls(path, dict(filter(None, map(_line, lines[1:]))) if same else {})
            # Killed in the middle, the file is as it was.
            part = path.with_name(f"{path.name}.part")
            with part.open("w", encoding="utf-8") as found._out:
                found._put(head)
                for key, tried in found.known.items():  # a line that was cut is left out
                    found.add(key, tried)
            part.replace(path)
            found._out = path.open("a", encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"{path} cannot be used: {error.strerror}") from error
        return found

    def add(self, key: str, tried: TriedCase) -> None:
        """Keep one.

        Raises:
            RunFolderError: it cannot be written.
        """
        self._put(json.dumps([key, asdict(tried)]))

    def _put(self, line: str) -> None:
        assert self._out is not None
        try:
            self._out.write(f"{line}\n")
            self._out.flush()
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> TriedFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._out is not None:
            self._out.close()


def _line(text: bytes) -> tuple[str, TriedCase] | None:
    """A line as it was written; None for one that was cut, or is another's."""
    try:
        return _READ.validate_json(text)
    except ValidationError:
        return None

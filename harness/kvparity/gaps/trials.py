"""Trials on disk: a run that was cut goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from kvparity.core.errors import UnsupportedError
from kvparity.gaps.explain import FlipTrial
from kvparity.gaps.factors import of_candidate


class _Line(TypedDict):
    of: str
    trial: FlipTrial


_LINE = TypeAdapter(_Line)


_READ = (".json", ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".model")
"""Settings and weights of a checkpoint, and whatever may be read as such."""


@dataclass(frozen=True)
class TrialSource:
    """What trials are about. ``candidates``: the digest of each folder of other weights."""

    given: str
    candidates: Mapping[str, str]

    def of(self, factors: Collection[str]) -> str:
        """What one trial is about: a folder of other weights only where it is used."""
        used = (
            digest
            for folder, digest in self.candidates.items()
            if not set(of_candidate(folder)).isdisjoint(factors)
        )
        return hashlib.sha256("\n".join((self.given, *sorted(used))).encode()).hexdigest()[:16]


def source(
    recording: Path, folders: Sequence[Path], candidates: Iterable[str], ran_on: str
) -> TrialSource:
    """By contents: times and sizes may be those of other files, of an archive or an image.

    ``folders``: the checkpoint, and the adapter on it. ``ran_on``: versions and device.

    Raises:
        UnsupportedError: a file cannot be read.
    """
    model = "\n".join(map(_folder, folders))
    given = f"{_contents(recording)}\n{model}\n{ran_on}"
    return TrialSource(given, {each: _folder(Path(each)) for each in candidates})


def _folder(checkpoint: Path) -> str:
    files = sorted(each for each in checkpoint.iterdir() if each.suffix in _READ)
    return "\n".join(f"{each.name} {_contents(each)}" for each in files if each.is_file())


def _contents(path: Path) -> str:
    made = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                made.update(block)
    except OSError as error:
        raise UnsupportedError(f"{path} cannot be read: {error.strerror}") from error
    return made.hexdigest()


def read(path: Path, about: TrialSource) -> list[FlipTrial]:
    """The trials in ``path`` that are about the same; none where there is no file.

    Raises:
        UnsupportedError: it cannot be read, or a line is no trial; the message names it.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnsupportedError(f"--trials {path} cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            value = _LINE.validate_json(line)
        except ValidationError:
            raise UnsupportedError(
                f"{path}:{number} is no trial of kvparity drift: remove the line, or name another "
                "--trials"
            ) from None
        if value["of"] == about.of(value["trial"].factors):
            found.append(value["trial"])
    return found


def append(path: Path, about: TrialSource, trial: FlipTrial) -> None:
    """One line, on the disk when this returns.

    Raises:
        UnsupportedError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"of": about.of(trial.factors), "trial": asdict(trial)}) + "\n")
    except OSError as error:
        raise UnsupportedError(f"--trials {path} cannot be written: {error.strerror}") from error

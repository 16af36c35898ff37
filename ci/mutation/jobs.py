"""What is asked of the processes that run mutants, and what they answer: lines of JSON on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mutation.mutants import Mutant

Status = Literal["killed", "survived", "endless", "unpatchable", "unreached"]


@dataclass(frozen=True)
class Job:
    """A mutant, the tests that are to see it, and how long those took when they passed.

    ``imported``: its function runs while modules are imported, and then has done so already in a
    live process.
    """

    mutant: Mutant
    tests: tuple[str, ...]
    seconds: float
    imported: bool = False


@dataclass(frozen=True)
class Outcome:
    """``by``: the test that failed, or what else happened. ``endless`` is a kill, too."""

    key: str
    status: Status
    by: str = ""
    seconds: float = 0.0


def write_jobs(jobs: Iterable[Job], path: Path) -> None:
    """One line each."""
    path.write_text("".join(json.dumps(asdict(job)) + "\n" for job in jobs))


def read_jobs(path: Path) -> list[Job]:
    """What :func:`write_jobs` wrote."""
    found = []
    for line in path.read_text().splitlines():
        data = json.loads(line)
        mutant, tests = Mutant(**data.pop("mutant")), tuple(data.pop("tests"))
        found.append(Job(mutant, tests, **data))
    return found


def add(outcome: Outcome, path: Path) -> None:
    """Append one line, in one piece: several processes do so at once."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(asdict(outcome)) + "\n").encode())
    finally:
        os.close(handle)


def read(path: Path) -> dict[str, Outcome]:
    """The last outcome of each mutant; a line without its end, of an interrupted run, is left."""
    found: dict[str, Outcome] = {}
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                outcome = Outcome(**json.loads(line))
                found[outcome.key] = outcome
    return found

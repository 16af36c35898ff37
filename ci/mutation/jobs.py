"""What is asked of the processes that run mutants, and what they answer: lines of JSON on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from mutation.mutants import Mutant
from mutation.scope import ROOT, GivenError

Status = Literal["killed", "survived", "endless", "unpatchable", "unreached"]


@dataclass(frozen=True)
class MutantJob:
    """A mutant, the tests that are to see it, and how long those took when they passed.

    ``imported``: its function runs while modules are imported, and then has done so already in a
    live process.
    """

    mutant: Mutant
    tests: tuple[str, ...]
    seconds: float
    imported: bool = False


@dataclass(frozen=True)
class MutantOutcome:
    """``by``: the test that failed, or what else happened. ``endless`` is a kill, too.

    ``tests``: the files of the tests that were run, or of the one that failed, with a digest.
    """

    key: str
    status: Status
    by: str = ""
    seconds: float = 0.0
    tests: Mapping[str, str] = field(default_factory=dict)


def write_jobs(jobs: Iterable[MutantJob], path: Path) -> None:
    """One line each."""
    path.write_text("".join(json.dumps(asdict(job)) + "\n" for job in jobs))


def read_jobs(path: Path) -> list[MutantJob]:
    """What :func:`write_jobs` wrote."""
    found = []
    for line in path.read_text().splitlines():
        data = json.loads(line)
        mutant, tests = Mutant(**data.pop("mutant")), tuple(data.pop("tests"))
        found.append(MutantJob(mutant, tests, **data))
    return found


def add(outcome: MutantOutcome, path: Path) -> None:
    """Append one line, in one piece: several processes do so at once."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(asdict(outcome)) + "\n").encode())
    finally:
        os.close(handle)


def read(path: Path) -> dict[str, MutantOutcome]:
    """The last outcome of each mutant; a line without its end, of an interrupted run, is left."""
    found: dict[str, MutantOutcome] = {}
    if path.exists():
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            if line.endswith(b"\n"):
                try:
                    outcome = MutantOutcome(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise GivenError(
                        f"{path}: line {number} is no outcome; --anew forgets them all"
                    ) from error
                found[outcome.key] = outcome
    return found


def digests(tests: Iterable[str]) -> dict[str, str]:
    """Of the files of these tests, by their names: what an outcome says, it says of those."""
    found = {}
    for name in sorted({test.partition("::")[0] for test in tests}):
        path = ROOT / name
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""
    return found


def standing(outcomes: Mapping[str, MutantOutcome]) -> dict[str, MutantOutcome]:
    """Those whose tests are as they were: a test that killed may be weaker by now."""
    now = digests({name for each in outcomes.values() for name in each.tests})
    return {
        key: each
        for key, each in outcomes.items()
        if all(now[name] == digest for name, digest in each.tests.items())
    }

"""Mutants that no test sees and that are known: those that change nothing, and those left."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mutation.mutants import Mutant
from mutation.scope import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EQUIVALENT = ROOT / "ci/equivalent"
LEFT = ROOT / "docs/results/mutants.json"


@dataclass(frozen=True)
class Change:
    """A mutant as a reader sees it, which outlives changes of other lines of the function."""

    file: str
    owner: str
    before: str
    after: str


def change(mutant: Mutant) -> Change:
    """The change that a mutant is."""
    return Change(mutant.file, mutant.owner, *mutant.change())


def equivalent(folder: Path = EQUIVALENT) -> dict[Change, str]:
    """The changes that no behaviour shows, and why that is so."""
    found: dict[Change, str] = {}
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["equivalent"]:
            reason = entry.pop("reason")
            found[Change(**entry)] = reason
    return found


def left(path: Path = LEFT) -> set[Change]:
    """The survivors that the last whole run published."""
    if not path.exists():
        return set()
    return {Change(**entry) for entry in json.loads(path.read_text())["survivors"]}


def stale(known: Iterable[Change], mutants: Iterable[Mutant]) -> list[Change]:
    """Entries that are no mutant of today's files any more."""
    there = {change(mutant) for mutant in mutants}
    return [each for each in known if each not in there]

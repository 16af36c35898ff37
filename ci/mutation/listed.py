"""Mutants that no test sees and that are known: those that change nothing, and those left."""

from __future__ import annotations

import ast
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mutation.faults import entries
from mutation.mutants import Mutant, owners
from mutation.scope import ROOT

EQUIVALENT = ROOT / "ci/equivalent"
LEFT = ROOT / "docs/results/mutants.json"


@dataclass(frozen=True)
class SourceChange:
    """A mutant as a reader sees it, which outlives changes of other lines of the function."""

    file: str
    owner: str
    before: str
    after: str


def change(mutant: Mutant) -> SourceChange:
    """The change that a mutant is."""
    return SourceChange(mutant.file, mutant.owner, *mutant.change())


def equivalent(folder: Path = EQUIVALENT) -> dict[SourceChange, str]:
    """The changes that no behaviour shows, and why that is so."""
    found = entries(folder, "equivalent")
    return {
        SourceChange(each["file"], each["owner"], each["before"], each["after"]): each["reason"]
        for each in found
    }


def left(path: Path = LEFT) -> set[SourceChange]:
    """What survived in the last whole run that was published, and what it did not come to."""
    if not path.exists():
        return set()
    known = json.loads(path.read_text())
    return {SourceChange(**entry) for entry in (*known["survivors"], *known["waiting"])}


def stale(known: Collection[SourceChange]) -> list[SourceChange]:
    """Entries whose lines do not stand in their function any more."""
    texts: dict[tuple[str, str], list[str]] = {}
    for file in {each.file for each in known}:
        source = (ROOT / file).read_text()
        texts[file, ""] = source.splitlines()
        for owner in owners(ast.parse(source), source):
            texts[file, owner.name] = owner.text.splitlines()
    return [each for each in known if not _stands(each.before, texts.get((each.file, each.owner)))]


def _stands(before: str, lines: list[str] | None) -> bool:
    wanted, there = before.splitlines(), [line.strip() for line in lines or ()]
    return any(there[at : at + len(wanted)] == wanted for at in range(len(there)))

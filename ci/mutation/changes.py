"""What a change touched: the lines since a commit, also those that are not committed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterable

from mutation.mutants import Mutant, owners
from mutation.scope import ROOT, GivenError

_HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", re.MULTILINE)


def base(given: str | None) -> str | None:
    """The commit to compare with: the one given, KVPARITY_BASE, or the one before; None if none."""
    for name in (given, os.environ.get("KVPARITY_BASE")):
        if name:
            if (found := _commit(name)) is None:
                raise GivenError(f"{name} is no commit of this checkout")
            return found
    return _commit("HEAD~1")


def _commit(name: str) -> str | None:
    command = ["git", "rev-parse", "--verify", f"{name}^{{commit}}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def files(since: str, folder: str) -> list[str]:
    """The Python files under a folder that differ from the commit and are still there."""
    names = git("diff", "--name-only", "--diff-filter=d", since, "--", folder).splitlines()
    names += _new(folder)
    return [name for name in names if name.endswith(".py")]


def lines(since: str, file: str) -> set[int]:
    """The lines of a file, as it is now, that differ; where lines were only taken, those around."""
    if _new(file):
        return set(range(1, len((ROOT / file).read_text().splitlines()) + 1))
    found: set[int] = set()
    for start, count in _HUNK.findall(git("diff", "-U0", since, "--", file)):
        first, many = int(start), int(count or 1)
        found |= set(range(first, first + many)) if many else {first, first + 1}
    return found


def touched(mutants: Iterable[Mutant], file: str, changed: set[int]) -> list[Mutant]:
    """The mutants in functions that have a changed line; outside of functions, on such a line."""
    source = (ROOT / file).read_text()
    hit = {
        owner.name
        for owner in owners(ast.parse(source), source)
        if changed & set(range(owner.body.start[0], owner.body.end[0]))
    }
    return [each for each in mutants if each.owner in hit or each.line in changed]


def _new(path: str) -> list[str]:
    """Files under a path that git does not track yet."""
    return git("ls-files", "--others", "--exclude-standard", "--", path).splitlines()


def git(*command: str) -> str:
    """What git prints of this checkout."""
    return subprocess.run(
        ["git", *command], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout

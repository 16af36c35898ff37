"""Mutants are run, live where that is possible, else on disk; each way is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mutation import covering, mutants, report
from mutation.jobs import MutantJob, MutantOutcome, read, write_jobs
from mutation.scope import ROOT

STATE = ROOT / ".mutants"
EACH_S = 8.0
"""What the tests of one mutant may take, the cheapest first; one that needs more is a survivor."""
AGAIN = 4
"""So much more time has one that survived before: all rows of the tables that it was tried with."""
PREPARED = {"KVPARITY_TESTS_COMPILED": str(STATE / "compiled")}
"""The audits' tests find here what they have compiled before: half a minute."""
LIVE = 0.7
"""So much of the time is for live mutants, the rest for those on disk."""


def run(
    todo: Sequence[mutants.Mutant],
    results: Path,
    copies: int,
    until: float,
    more: Sequence[str] = (),
) -> None:
    """The mutants with their tests. ``more``: test files that see all of them.

    Those without an outcome come first, by their keys: where there is no time for all, what is run
    is of every kind.
    """
    reached = covering.read()
    work = []
    seeing: dict[str, list[str]] = {}
    tried = read(results)
    for mutant in sorted(todo, key=lambda each: (each.key in tried, each.key)):
        tests, seconds = reached.of(mutant.file, mutant.owner), EACH_S
        if mutant.key in tried:  # the map keeps few rows of a table, and another may see it
            tests, seconds = reached.whole(tests), AGAIN * EACH_S
        tests = reached.within(there(tests), seconds)
        if mutant.file not in seeing:
            may = (test for test in more if reached.may_reach(test, mutant.file))
            seeing[mutant.file] = list(may)
        also = seeing[mutant.file]
        took = sum(reached.seconds_of(test) for test in tests) + 5.0 * len(also)
        imported = mutant.owner in reached.imported.get(mutant.file, ())
        work.append(MutantJob(mutant, (*tests, *also), took, imported))
    run_jobs(work, results, copies, until)


def there(tests: Sequence[str]) -> tuple[str, ...]:
    """Those whose files are still there: pytest runs none where one is gone."""
    return tuple(test for test in tests if _is_there(test.partition("::")[0]))


@cache
def _is_there(file: str) -> bool:
    return (ROOT / file).exists()


def run_jobs(work: Sequence[MutantJob], results: Path, copies: int, until: float) -> None:
    """Live where that is possible, and then on disk. What is not done by ``until`` is left."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs"
        write_jobs([job for job in work if job.mutant.inside], path)
        now = time.time()
        _step("live", path, results, copies, now + LIVE * (until - now))
        done = read(results)
        left = [job for job in work if _on_disk(job, done.get(job.mutant.key))]
        write_jobs(left, path)
        _step("fresh", path, results, copies, until)


def _on_disk(job: MutantJob, live: MutantOutcome | None) -> bool:
    """Whether a mutant is to be run on disk, too, for what the live process said of it."""
    if not job.mutant.inside:
        return True
    if live is None or live.status in report.KILLED:
        return False
    return job.imported or live.status == "unpatchable"


def _step(program: str, jobs: Path, results: Path, copies: int, until: float) -> None:
    """A process of its own for one way to run mutants."""
    if not jobs.read_text():
        return
    log = STATE / f"{program}.log"
    with log.open("w") as out:
        given = [str(jobs), str(results), str(copies), str(until)]
        done = subprocess.run(
            [sys.executable, "-m", f"mutation.{program}", *given],
            stdout=out,
            stderr=out,
            env=os.environ | PREPARED,
        )
    if done.returncode:
        raise SystemExit(f"ci/mutants: running them ({program}) failed:\n{log.read_text()[-3000:]}")

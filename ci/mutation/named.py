"""``ci/mutants --faults`` and ``--planted``: the faults of ``ci/faults``, alone and together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from mutation import faults, fresh, mutants, report
from mutation.jobs import MutantJob, read
from mutation.running import STATE, run_jobs
from mutation.scope import ROOT, GivenError


def alone(names: Sequence[str], copies: int) -> int:
    """Each fault alone: its tests pass without it, and fail with it. Exit code 1: one is unseen."""
    chosen = _chosen(names)
    results = STATE / f"faults-{os.getpid()}.jsonl"
    work = []
    for fault in chosen:
        line = fault.line((ROOT / fault.file).read_text())
        mutant = mutants.Mutant(fault.name, fault.file, line, "", mutants.FAULT, 0, True)
        work.append(MutantJob(mutant, fault.tests, 10.0))
    try:
        run_jobs(work, results, copies, float("inf"))
        found = read(results)
    finally:
        results.unlink(missing_ok=True)
    missed = [fault for fault in chosen if found[fault.name].status not in report.KILLED]
    for fault in missed:
        said = found[fault.name]
        print(f"UNSEEN {fault.name}: {fault.green} ({said.status} {said.by})".rstrip())
    print(f"faults: {len(chosen) - len(missed)} of {len(chosen)} seen")
    return 1 if missed else 0


def together(names: Sequence[str]) -> int:
    """One build with these faults, or with all, under the test files that they name.

    Exit code 1: of one of them, none of its own tests is red.
    """
    chosen, files, apart = _chosen(names), set[str](), []
    with tempfile.TemporaryDirectory() as folder:
        root = fresh.tree(Path(folder))
        for fault in list(chosen):
            try:
                fault.plant(root)
            except ValueError:  # another one has changed its place
                apart.append(fault.name)
                chosen.remove(fault)
                continue
            files |= {test.partition("::")[0] for test in fault.tests}
        red = faults.failing(root, "-n", "auto", "--dist", "worksteal", *sorted(files))
    print("\n".join(red))
    if apart:
        print(f"left out, for another changes the same lines: {', '.join(apart)}")
    missed = unseen(chosen, red)
    for fault in missed:
        print(f"UNSEEN {fault.name}: {fault.green}")
    print(f"planted: {len(chosen)} faults at once, {len(red)} tests are red")
    return 1 if missed else 0


def unseen(planted: Sequence[faults.ListedFault], red: Collection[str]) -> list[faults.ListedFault]:
    """Those of which none of their own tests is among the red ones."""
    ends = ("\0", "[", "::")
    named = {test.partition(end)[0] for test in red for end in ends}
    return [fault for fault in planted if not named & set(fault.tests)]


def _chosen(names: Sequence[str]) -> list[faults.ListedFault]:
    """The faults of these names; all where there are none."""
    found = [fault for fault in faults.faults() if not names or fault.name in names]
    if unknown := set(names) - {fault.name for fault in found}:
        raise GivenError(f"no fault of ci/faults is named {', '.join(sorted(unknown))}")
    return found

"""``ci/mutants``: small faults planted in the files that decide, and the tests that die."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mutation import changes, covering, faults, fresh, listed, mutants
from mutation import jobs as asking
from mutation import report as reporting
from mutation.scope import ROOT, files

STATE = ROOT / ".mutants"
HERE = Path(__file__).parent
CHANGED_S = 140.0
EACH_S = 8.0
"""What the tests of one mutant may take, the cheapest first; one that needs more is a survivor."""
PREPARED = {"KVPARITY_TESTS_COMPILED": str(STATE / "compiled")}
"""The audits' tests find here what they have compiled before: half a minute."""
LIVE = 0.7
"""So much of the time is for live mutants, the rest for those on disk."""


def main() -> int:
    """Exit code 0: nothing survived but what is known; 1: something did; 2: bad command line."""
    parser = argparse.ArgumentParser(prog="ci/mutants", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="all mutants; goes on where it stopped")
    what.add_argument(
        "--changed",
        nargs="?",
        const="",
        metavar="COMMIT",
        help="mutants of the functions that changed since a commit, for 3 minutes",
    )
    what.add_argument("--faults", nargs="*", metavar="NAME", help="the faults of ci/faults")
    what.add_argument(
        "--planted",
        nargs="*",
        metavar="NAME",
        help="one build with these faults of ci/faults, or with all",
    )
    what.add_argument(
        "--map",
        nargs="*",
        metavar="TEST_FILE",
        help="measure anew which tests reach which function",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE", help="these files")
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="TEST_FILE",
        help="with --all: these see everything",
    )
    parser.add_argument("--anew", action="store_true", help="forget earlier outcomes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="stop after so long")
    parser.add_argument("--publish", action="store_true", help="write docs/results/mutants.*")
    given = parser.parse_args()  # fmt: skip
    STATE.mkdir(exist_ok=True)
    if unknown := set(given.only) - set(files()):
        parser.error(f"{', '.join(sorted(unknown))}: not a file that ci/mutation/scope.py names")
    if given.map is not None:
        return measure(given.map, given.jobs)
    if given.faults is not None:
        return named(given.faults, given.jobs)
    if given.planted is not None:
        return planted(given.planted)
    if given.changed is not None:
        return changed(given.changed or None, given.jobs)
    return everything(given)


def everything(given: argparse.Namespace) -> int:
    """All mutants, or those of some files; a survivor of an earlier run is tried again."""
    began = time.time()
    results = STATE / "results.jsonl"
    if given.anew:
        results.unlink(missing_ok=True)
    every = [each for file in given.only or files() for each in mutants.of(file)]
    known = asking.read(results)
    todo = [m for m in every if m.key not in known or known[m.key].status not in reporting.KILLED]
    print(f"{len(every)} mutants, {len(every) - len(todo)} killed before", flush=True)
    run(todo, results, given.jobs, began + 60 * given.minutes, given.also)
    outcomes = asking.read(results)
    found = reporting.report(every, outcomes, listed.equivalent())
    tell(found)
    if given.publish:
        about = {
            "command": "ci/mutants --all --publish",
            "time": f"{(time.time() - began) / 60:.0f} min on {given.jobs} cores"
            + (
                f", {len(every) - len(todo)} mutants killed before"
                if len(todo) < len(every)
                else ""
            ),
            "commit": git("rev-parse", "--short", "HEAD"),
        }
        kills = [(m.file, m.owner, outcomes[m.key].by) for m in every if m.key in outcomes]
        kills = [each for each in kills if "::" in each[2]]
        covering.write(covering.remembering(covering.read(), kills))
        listed.LEFT.write_text(reporting.document(found, about))
        listed.LEFT.with_suffix(".md").write_text(reporting.markdown(found, about))
    return 1 if found.survivors else 0


def changed(since: str | None, copies: int) -> int:
    """The mutants that a change touched, as many as there is time for."""
    began = time.time()
    if (base := changes.base(since)) is None:
        print("mutants: there is no commit before this one: nothing to compare with")
        return 0
    touched: list[mutants.Mutant] = []
    for file in sorted(set(changes.files(base, ".")) & set(files())):
        touched += changes.touched(mutants.of(file), file, changes.lines(base, file))
    tests = [name for name in changes.files(base, "tests") if "/test_" in name]
    print(f"mutants: {len(touched)} in what changed since {base[:12]}", flush=True)
    if not touched:
        return 0
    results = STATE / f"changed-{os.getpid()}.jsonl"
    try:
        run(touched, results, copies, began + CHANGED_S, tests)
        outcomes = asking.read(results)
    finally:
        results.unlink(missing_ok=True)
    found = reporting.report(touched, outcomes, listed.equivalent())
    if len(outcomes) < len(touched):
        print(f"mutants: {len(outcomes)} of {len(touched)} were run in {CHANGED_S:.0f} s")
    tell(found)
    new = [each for each in found.survivors if each[1] not in listed.left()]
    if new:
        print(
            f"mutants: {len(new)} survive that are not known. Write a test that dies, or say in "
            "ci/equivalent why nothing can; if a test is there already, let it be "
            "known: ci/mutants --map TEST_FILE"
        )
    return 1 if new else 0


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
    tried = asking.read(results)
    for mutant in sorted(todo, key=lambda each: (each.key in tried, each.key)):
        tests = reached.within(reached.of(mutant.file, mutant.owner), EACH_S)
        took = sum(reached.seconds[test] for test in tests) + 5.0 * len(more)
        imported = mutant.owner in reached.imported.get(mutant.file, ())
        work.append(asking.Job(mutant, (*tests, *more), took, imported))
    run_jobs(work, results, copies, until)


def run_jobs(work: Sequence[asking.Job], results: Path, copies: int, until: float) -> None:
    """Live where that is possible, and then on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs"
        asking.write_jobs([job for job in work if job.mutant.inside], path)
        now = time.time()
        step("live", path, results, copies, now + LIVE * (until - now))
        done = asking.read(results)
        left = [job for job in work if _on_disk(job, done.get(job.mutant.key))]
        asking.write_jobs(left, path)
        step("fresh", path, results, copies, until)


def _on_disk(job: asking.Job, live: asking.Outcome | None) -> bool:
    """Whether a mutant is to be run on disk, too, for what the live process said of it."""
    if not job.mutant.inside:
        return True
    if live is None or live.status in reporting.KILLED:
        return False
    return job.imported or live.status == "unpatchable"


def step(program: str, jobs: Path, results: Path, copies: int, until: float) -> None:
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


def tell(found: reporting.Report) -> None:
    """Survivors, then the counts."""
    for each in sorted(found.survivors, key=lambda each: (each[0].file, each[0].line)):
        print(reporting.survivor(*each))
    whole = found.whole
    if not whole.tried:
        print(f"mutants: none of {whole.mutants} was run")
        return
    print(
        f"mutants: {whole.tried} of {whole.mutants} run: {whole.killed} killed, "
        f"{whole.equivalent} change nothing, {len(found.survivors)} survive; "
        f"{100 * whole.rate:.1f} % of those that change something are killed"
    )


def named(names: Sequence[str], copies: int) -> int:
    """Each fault of ci/faults alone: its tests pass without it, and fail with it."""
    chosen = _chosen(names)
    results = STATE / f"faults-{os.getpid()}.jsonl"
    work = []
    for fault in chosen:
        line = fault.line((ROOT / fault.file).read_text())
        mutant = mutants.Mutant(fault.name, fault.file, line, "", mutants.FAULT, 0, True)
        work.append(asking.Job(mutant, fault.tests, 10.0))
    try:
        run_jobs(work, results, copies, float("inf"))
        found = asking.read(results)
    finally:
        results.unlink(missing_ok=True)
    unseen = [fault for fault in chosen if found[fault.name].status not in reporting.KILLED]
    for fault in unseen:
        said = found[fault.name]
        print(f"UNSEEN {fault.name}: {fault.green} ({said.status} {said.by})".rstrip())
    print(f"faults: {len(chosen) - len(unseen)} of {len(chosen)} seen")
    return 1 if unseen else 0


def _chosen(names: Sequence[str]) -> list[faults.Fault]:
    """The faults of these names; all where there are none."""
    found = [fault for fault in faults.faults() if not names or fault.name in names]
    if unknown := set(names) - {fault.name for fault in found}:
        raise SystemExit(f"ci/mutants: no fault of ci/faults is named {', '.join(sorted(unknown))}")
    return found


def planted(names: Sequence[str]) -> int:
    """One build with these faults, or with all, under the test files that they name."""
    chosen, tests, apart = _chosen(names), set[str](), []
    with tempfile.TemporaryDirectory() as folder:
        root = fresh.tree(Path(folder))
        for fault in chosen:
            try:
                fault.plant(root)
            except ValueError:  # another one has changed its place
                apart.append(fault.name)
            tests |= {test.partition("::")[0] for test in fault.tests}
        red = faults.failing(root, "-n", "auto", "--dist", "worksteal", *sorted(tests))
    together = len(chosen) - len(apart)
    print("\n".join(red))
    if apart:
        print(f"left out, for another changes the same lines: {', '.join(apart)}")
    print(f"planted: {together} faults at once, {len(red)} tests are red")
    return 0 if len(red) >= together else 1


def measure(tests: Sequence[str], copies: int) -> int:
    """Run tests under coverage, all or those files, and keep which functions they reach."""
    data, junit, log = STATE / "coverage", STATE / "junit.xml", STATE / "map.log"
    data.unlink(missing_ok=True)
    options = ["-q", "-p", "no:cacheprovider", "-n", str(copies), "--dist", "worksteal", "--cov"]
    options += [f"--cov-config={HERE / 'coverage.ini'}", "--cov-context=test", "--cov-report="]
    env = os.environ | PREPARED | {"COVERAGE_FILE": str(data)}
    if not (STATE / "compiled").exists():  # else the test that needs it first seems to take so long
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/harness/audit"], cwd=ROOT, env=env
        )
    with log.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--junitxml={junit}", *tests],
            cwd=ROOT, stdout=out, stderr=out, env=env,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"ci/mutants: tests failed:\n{log.read_text()[-3000:]}")
    found = covering.measured(data, junit)
    covering.write(covering.merged(covering.read(), found, tests) if tests else found)
    return 0


def git(*command: str) -> str:
    """One line that git says."""
    return subprocess.run(
        ["git", *command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

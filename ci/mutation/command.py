"""``ci/mutants``: small faults planted in the files that decide, and the tests that die."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mutation import changes, covering, listed, mutants, named
from mutation import jobs as asking
from mutation import report as reporting
from mutation.running import PREPARED, STATE, run
from mutation.scope import ROOT, GivenError, files

HERE = Path(__file__).parent
CHANGED_S = 140.0


def main() -> int:
    """Exit code 0: nothing survived but what is known; 1: something did, or there were mutants and
    none was run; 2: bad command line.
    """
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
    if gone := [name for name in (given.map or []) + given.also if not (ROOT / name).is_file()]:
        parser.error(f"{', '.join(gone)}: no such file")
    try:
        return do(given)
    except GivenError as error:
        parser.error(str(error))


def do(given: argparse.Namespace) -> int:
    """What the command line asks for."""
    if given.map is not None:
        return measure(given.map, given.jobs)
    if given.faults is not None:
        return named.alone(given.faults, given.jobs)
    if given.planted is not None:
        return named.together(given.planted)
    if given.changed is not None:
        return changed(given.changed or None, given.jobs)
    return everything(given)


def everything(given: argparse.Namespace) -> int:
    """All mutants, or those of some files. A kill stands while the files of its tests do."""
    began = time.time()
    results = STATE / "results.jsonl"
    if given.anew:
        results.unlink(missing_ok=True)
    every = [each for file in given.only or files() for each in mutants.of(file)]
    known = asking.standing(asking.read(results))
    todo = [m for m in every if m.key not in known or known[m.key].status not in reporting.KILLED]
    print(f"{len(every)} mutants, {len(every) - len(todo)} killed before", flush=True)
    run(todo, results, given.jobs, began + 60 * given.minutes, given.also)
    outcomes = asking.standing(asking.read(results))
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
            "commit": changes.git("rev-parse", "--short", "HEAD").strip(),
        }
        kills = [(m.file, m.owner, outcomes[m.key].by) for m in every if m.key in outcomes]
        kills = [each for each in kills if "::" in each[2]]
        covering.write(covering.remembering(covering.read(), kills))
        listed.LEFT.write_text(reporting.document(found, about))
        listed.LEFT.with_suffix(".md").write_text(reporting.markdown(found, about))
    return 1 if found.survivors or found.seen or found.nothing_ran else 0


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
    return 1 if new or found.seen or found.nothing_ran else 0


def tell(found: reporting.MutantReport) -> None:
    """Survivors, then the counts."""
    for each in sorted(found.survivors, key=lambda each: (each[0].file, each[0].line)):
        print(reporting.survivor(*each))
    for entry, test in found.seen.items():
        print(
            f"{entry.file}: {entry.owner}: ci/equivalent says that this changes nothing, but "
            f"{test} sees it:\n    - {entry.before}\n    + {entry.after}\n"
        )
    whole = found.whole
    if not whole.tried:
        print(f"mutants: none of {whole.mutants} was run")
        return
    print(
        f"mutants: {whole.tried} of {whole.mutants} run: {whole.killed} killed, "
        f"{whole.equivalent} change nothing, {len(found.survivors)} survive; "
        f"{100 * whole.rate:.1f} % of those that change something are killed"
    )


def measure(tests: Sequence[str], copies: int) -> int:
    """Run tests under coverage, all or those files, and keep which functions they reach."""
    data, junit, log = STATE / "coverage", STATE / "junit.xml", STATE / "map.log"
    data.unlink(missing_ok=True)
    options = ["-q", "-p", "no:cacheprovider", "-n", str(copies), "--dist", "worksteal", "--cov"]
    options += [f"--cov-config={HERE / 'coverage.ini'}", "--cov-context=test", "--cov-report="]
    env = os.environ | PREPARED | {"COVERAGE_FILE": str(data)}
    if not (STATE / "compiled").exists():  # else the test that needs it first seems to take so long
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/harness/relations/audit"],
            cwd=ROOT,
            env=env,
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


if __name__ == "__main__":
    sys.exit(main())

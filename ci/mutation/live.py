"""Mutants in one live process: a pytest plugin that makes a copy of it for each of them.

Tests are imported and collected once. A copy gives the function its changed code, and runs the
tests that reach it until one fails. A test whose failure kills must pass where the code is compiled
anew from the unchanged text, after the same tests: else its failure says nothing, and it is left
out. So it is with a copy that dies or does not end.

What this cannot change (constants, classes, kernels) is left to :mod:`fresh`.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType

import pytest

from mutation.copying import DIED, ENDLESS, SURELY, asked, spread
from mutation.jobs import MutantJob, MutantOutcome, Status, add, digests, read_jobs
from mutation.patching import PatchError, Place, functions, patch
from mutation.scope import ROOT

SLACK_S, TIMES = 20.0, 5.0
"""A mutant ends in so many times what its tests took, and the slack, or it is endless."""
_PASSED, _CANNOT = "passed", "unpatchable: "


class _Failures:
    def __init__(self) -> None:
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed


class Live:
    """The loop that takes the place of pytest's own."""

    def __init__(self, jobs: Path, results: Path, copies: int, until: float) -> None:
        self.jobs, self.results, self.copies, self.until = read_jobs(jobs), results, copies, until
        self.items: dict[str, pytest.Item] = {}
        self.live: dict[Path, dict[Place, list[FunctionType]]] = {}
        self.sound: dict[tuple[tuple[str, ...], str], bool] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all jobs; True: pytest itself runs nothing."""
        self.items = {item.nodeid: item for item in session.items}
        self.live = functions({ROOT / job.mutant.file for job in self.jobs})
        gc.collect()
        gc.freeze()
        spread(self.jobs, self.copies, self._job, self.until)
        return True

    def files(self) -> list[str]:
        """The test files that are needed."""
        return sorted({test.partition("::")[0] for job in self.jobs for test in job.tests})

    def _job(self, job: MutantJob) -> None:
        began = time.monotonic()
        status, by = self._outcome(job)
        if time.time() >= self.until:  # it may be the end that cut it
            return
        took = round(time.monotonic() - began, 2)
        seen = digests([by] if by in self.items else job.tests)
        add(MutantOutcome(job.mutant.key, status, by, took, seen), self.results)

    def _outcome(self, job: MutantJob) -> tuple[Status, str]:
        text, file = job.mutant.text(), job.mutant.file
        tests = [name for test in job.tests for name in self._named(test)]
        while tests:
            found = self._tried(job, text, tests)
            if found == _PASSED:
                return "survived", ""
            if found.startswith(_CANNOT):
                return "unpatchable", found.removeprefix(_CANNOT)
            if found in (ENDLESS, DIED):
                if self._tried(job, (ROOT / file).read_text(), tests, SURELY) != _PASSED:
                    return "unreached", f"without a change, too: {found}"
                return ("endless" if found == ENDLESS else "killed"), found
            if found not in self.items:
                raise RuntimeError(f"{job.mutant}: {found}")
            ran = tuple(tests[: tests.index(found) + 1])  # those before it may be why it fails
            if (ran, file) not in self.sound:
                self.sound[ran, file] = self._tried(job, (ROOT / file).read_text(), ran) == _PASSED
            if self.sound[ran, file]:
                return "killed", found
            tests.remove(found)
        return "unreached", ""

    def _named(self, test: str) -> list[str]:
        """A test, or those of a function or a file; none where it is gone."""
        if test in self.items:
            return [test]
        return [name for name in self.items if name.startswith((f"{test}::", f"{test}["))]

    def _tried(self, job: MutantJob, text: str, tests: Sequence[str], share: float = 1.0) -> str:
        limit = min(share * (SLACK_S + TIMES * job.seconds), self.until - time.time())
        return asked(lambda: self._run(job, text, tests), limit)

    def _run(self, job: MutantJob, text: str, tests: Sequence[str]) -> str:
        """In a copy: the first test that fails, or that all passed."""
        path = ROOT / job.mutant.file
        try:
            patch(path, text, job.mutant.line, self.live.get(path, {}))
        except (PatchError, SyntaxError) as error:
            return f"{_CANNOT}{error}"
        failures = _Failures()
        chosen = [self.items[test] for test in tests]
        for item, following in zip(chosen, [*chosen[1:], None], strict=True):
            manager = item.config.pluginmanager
            if not manager.is_registered(failures):
                manager.register(failures)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if failures.failed:
                return item.nodeid
        return _PASSED


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / room) for room in ("harness", "kernels", "contracts")]
    plugin = Live(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-q"]
    sys.exit(pytest.main([*options, *plugin.files()], plugins=[plugin]))

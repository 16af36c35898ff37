"""Mutants on disk, in processes that import kvparity anew: for what a live process has already.

A server imports what is not kvparity's, and makes a copy of itself for each mutant. The copy runs
pytest in a tree of files where the change is written.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mutation.copying import DIED, ENDLESS, SURELY, asked, spread
from mutation.jobs import MutantJob, MutantOutcome, Status, add, digests, read_jobs
from mutation.mutants import FAULT
from mutation.scope import ROOT

SLACK_S, TIMES = 60.0, 5.0
ROOMS = ("harness", "kernels", "contracts")
_IMPORTED = (
    "numpy", "torch", "triton", "triton.language", "transformers", "pydantic", "ruamel.yaml",
    "hypothesis", "pytest", "safetensors.torch", "tqdm", "torch._dynamo", "torch.export",
    "transformers.models.qwen3.modeling_qwen3", "transformers.models.mistral.modeling_mistral",
    "transformers.models.gemma3.modeling_gemma3",
)  # fmt: skip


def tree(folder: Path) -> Path:
    """A copy of the checkout's files, those too that are not committed yet."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            shutil.copymode(ROOT / name, folder / name)
    return folder


def imported() -> None:
    """What the copies need not import again. They keep no compiled file that another would read."""
    os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True
    os.environ["TRITON_INTERPRET"] = "1"
    for name in _IMPORTED:
        importlib.import_module(name)


class _Chosen:
    """Leaves out what was not asked for; a test that is gone by now is no error."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.tests = set(tests)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            item
            for item in items
            if {item.nodeid, item.nodeid.partition("[")[0], item.nodeid.partition("::")[0]}
            & self.tests
        ]


def passes(where: Path, tests: Sequence[str], limit_s: float) -> str:
    """Run tests in a tree, in a copy of this process: "0" where all pass, else pytest's code.

    A test is a node id, one without its parameters, or a file.
    """

    def run() -> str:
        os.chdir(where)
        paths = [str(where / room) for room in ROOMS]
        sys.path[:0] = paths
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        # what is imported has imported plugins of pytest, too
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        names = sorted({test.partition("::")[0] for test in tests})
        return str(int(pytest.main([*options, *names], plugins=[_Chosen(tests)])))

    return asked(run, limit_s)


_SAYS: dict[str, tuple[Status, str]] = {
    "0": ("survived", ""),
    "1": ("killed", "a test failed"),
    "2": ("killed", "tests could not be imported"),
    "4": ("killed", "a conftest could not be imported"),
    "5": ("survived", "its tests have other names then"),
    ENDLESS: ("endless", ENDLESS),
    DIED: ("killed", DIED),
}
"""By pytest's exit code: what that says of a mutant whose tests pass without it."""
_A_BUILD_THAT_DOES_NOT_IMPORT: tuple[Status, str] = ("survived", "its tests cannot be imported")
"""What codes 2 and 4 say of a fault: any error of typing does that, and the rule was not asked."""


class Fresh:
    """Runs jobs in trees under ``folder``, one for each process."""

    def __init__(self, folder: Path, results: Path, until: float = math.inf) -> None:
        self.folder, self.results, self.until = folder, results, until
        self.plain: dict[tuple[str, ...], bool] = {}

    def job(self, job: MutantJob) -> None:
        """Run one mutant and write its outcome, if there is time for it."""
        began = time.monotonic()
        status, by = self._outcome(job)
        if time.time() >= self.until:  # it may be the end that cut it
            return
        took = round(time.monotonic() - began, 2)
        add(MutantOutcome(job.mutant.key, status, by, took, digests(job.tests)), self.results)

    def _outcome(self, job: MutantJob) -> tuple[Status, str]:
        where = self.folder / str(os.getpid())
        if not where.exists():
            tree(where)
        limit = SLACK_S + TIMES * job.seconds
        if not job.tests:
            return "unreached", ""
        if job.tests not in self.plain:
            self.plain[job.tests] = self._passes(where, job.tests, limit) == "0"
        if not self.plain[job.tests]:
            return "unreached", "its tests fail without a change, or are gone"
        path = where / job.mutant.file
        path.write_text(job.mutant.text())
        found = self._passes(where, job.tests, limit)
        shutil.copyfile(ROOT / job.mutant.file, path)
        if found == ENDLESS and self._passes(where, job.tests, SURELY * limit) != "0":
            return "unreached", f"without a change, too: {ENDLESS}"
        if found not in _SAYS:
            raise RuntimeError(f"{job.mutant}: pytest: {found}")
        if found in ("2", "4") and job.mutant.operator == FAULT:
            return _A_BUILD_THAT_DOES_NOT_IMPORT
        return _SAYS[found]

    def _passes(self, where: Path, tests: Sequence[str], limit_s: float) -> str:
        return passes(where, tests, min(limit_s, self.until - time.time()))


if __name__ == "__main__":
    imported()
    with tempfile.TemporaryDirectory() as folder:
        until = float(sys.argv[4])
        fresh = Fresh(Path(folder), Path(sys.argv[2]), until)
        spread(read_jobs(Path(sys.argv[1])), int(sys.argv[3]), fresh.job, until)

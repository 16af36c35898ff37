"""Which kind of kernels a test run uses, settled before any kernel module is imported.

Kernels are interpreted or compiled for the life of a process. All tests but those in tests/gpu run
interpreted, on any machine; ``KVPARITY_GPU_TESTS=1 pytest tests/gpu`` runs the others.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

with suppress(ImportError):  # a device is measured without hypothesis, too
    from hypothesis import settings

    # A machine that does other work meanwhile is no fault of a test.
    settings.register_profile("kvparity", deadline=None)
    settings.load_profile("kvparity")

Once = Callable[[str, Callable[[Path], object]], Path]
COMPILERS = frozenset({"sides", "run_compiler"})
"""Fixtures that compile kernels: a test that uses one is marked ``compile``."""
WHOLE_RUNS = frozenset({"tutorial", "third_party", "checkout", "listed"})
"""Fixtures that follow a page or a program to its end: a test that uses one is marked ``slow``."""
GPU_RUN = os.environ.get("KVPARITY_GPU_TESTS") == "1"
os.environ["TRITON_INTERPRET"] = "0" if GPU_RUN else "1"

for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):  # where CI runs them, tests are not its job
    os.environ.pop(name, None)

# A shell or nohup may have started this with signals ignored, which processes of the tests inherit.
for number, own in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, own)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder of that name that whoever asks has, of all test files and processes.

    What fails to be made is made again for the next who asks, and fails there.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    shared.mkdir(exist_ok=True)

    def give(name: str, make: Callable[[Path], object]) -> Path:
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder := shared / name).exists():
                unfinished = Path(tempfile.mkdtemp(dir=shared))
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return give


@pytest.fixture(scope="session")
def third_party(once: Once) -> Path:
    """The model that the README shows: exit code in ``code``, prints in ``out``, run in ``run``."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "kvparity", "verify", "transformers-qwen3-sdpa"]
        # Progress is told where a run takes longer than half a minute, and is no part of a report.
        # What is located must not depend on how busy the machine is.
        with (folder / "out").open("w") as out, (folder / "progress").open("w") as progress:
            done = subprocess.run(
                [
                    *command,
                    "--jobs",
                    "1",
                    "--run-dir",
                    str(folder / "run"),
                    "--locate-budget",
                    "600",
                ],
                stdout=out,
                stderr=progress,
                check=False,
            )
        (folder / "code").write_text(str(done.returncode))

    return once("third-party", make)


def which(config: pytest.Config) -> str:
    """Which of the tests that were named this run runs, in words."""
    if asked := config.getoption("markexpr"):
        return f"kvparity tests: only those of -m {asked!r} (ci/test -m '' runs all)"
    return "kvparity tests: all, those marked slow or compile among them"


def pytest_report_header(config: pytest.Config) -> list[str]:
    kind = "compiled (tests/gpu only)" if GPU_RUN else "interpreted"
    return [f"kvparity kernels: {kind}", which(config)]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    terminalreporter.write_line(which(config))


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if COMPILERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.compile)
        if WHOLE_RUNS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        if "/gpu/" not in str(item.path) and GPU_RUN:
            raise pytest.UsageError("KVPARITY_GPU_TESTS=1 runs tests/gpu alone: pytest tests/gpu")


def pytest_collection_finish() -> None:
    """Collecting garbage in a process full of imported modules is a fifth of the time: do it less.

    Every in-process verification lists thousands of functions, which starts collections.
    """
    gc.set_threshold(50_000, 20, 100)

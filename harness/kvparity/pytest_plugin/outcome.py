"""A contract, verified once for all tests of a run of pytest, in a process of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from kvparity.core.values import Value
from kvparity.pytest_plugin.session import RunSession
from kvparity.report.document import RunReport

_GRACE_S = 30

_failed: dict[str, str] = {}
"""Why there is no report: the test of this process that says so at length."""


class VerifyEnd(Value):
    """How the command ended: its exit code, what it said on stderr, and the run folder."""

    code: int
    words: str
    folder: str


@dataclass(frozen=True)
class VerifyResult:
    """What verifying a contract gave: a report, or words."""

    run: RunReport | None
    words: str

    def report(self, test: str) -> RunReport:
        """The report; where there is none, ``test`` fails with what the command said, and other
        tests of the contract by the name of this one."""
        if self.run is None:
            first = _failed.setdefault(self.words, test)
            words = self.words if first == test else f"there is no report; {first} says why"
            pytest.fail(words, pytrace=False)
        return self.run


@cache
def ask(session: RunSession, contract: Path) -> VerifyResult:
    """Verify, or read what another process of this run of pytest found."""
    key = hashlib.sha256(str(contract).encode()).hexdigest()[:16]
    with session.alone(key) as file:
        if text := file.read_text():
            ended = VerifyEnd.model_validate_json(text)
        else:
            ended = _verify(session, contract, session.folder(f"{contract.stem}-{key[:4]}"))
            file.write_text(ended.model_dump_json())
    run = Path(ended.folder) / "run.json"
    if not run.exists():
        return VerifyResult(
            None, ended.words or f"kvparity verify ended with exit code {ended.code}"
        )
    return VerifyResult(RunReport.model_validate_json(run.read_text(encoding="utf-8")), ended.words)


def _verify(session: RunSession, contract: Path, folder: Path) -> VerifyEnd:
    """A process of its own: whatever the tests imported or switched, it sees none of it."""
    arguments = ["verify", str(contract), "--run-dir", str(folder)]
    if session.device is not None:
        arguments += ["--device", session.device]
    code, words = run_process(arguments)
    return VerifyEnd(code=code, words=words.strip(), folder=str(folder))


def run_process(arguments: Sequence[str]) -> tuple[int, str]:
    """``kvparity ARGUMENTS``; returns its exit code and what it said on stderr."""
    # A contract may name what tests import from folders that pytest added.
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-m", "kvparity", *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, words = process.communicate()
    except KeyboardInterrupt:
        process.communicate(timeout=_GRACE_S)  # it was interrupted, too, and keeps what is finished
        raise
    return process.returncode, words

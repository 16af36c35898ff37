"""Verifications that pytest starts run in the tests' process."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

import pytest

# What is first imported in a pytest of its own is taken away with it.
import kvparity.run.verify  # noqa: F401
from kvparity.cli.main import main
from kvparity.pytest_plugin import outcome


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The command lines of verifications, which run in this process: they start nothing."""
    seen: list[Sequence[str]] = []

    def here(arguments: Sequence[str]) -> tuple[int, str]:
        seen.append(arguments)
        err = io.StringIO()
        with redirect_stderr(err), redirect_stdout(io.StringIO()):
            code = main([*arguments, "--jobs", "1"])
        return code, err.getvalue()

    monkeypatch.setattr(outcome, "run_process", here)
    return seen

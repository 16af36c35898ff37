"""Helpers of these tests (``toy``, ...) are plain modules beside them.

Subjects run in the test's own process, where they can be patched and cost no start: as from the
command line, in a process of their own, with the fixture ``apart``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import warm as warming
from browser import Browser, started

from kvparity.core import environment, replaced
from kvparity.core.isolation.inside import here
from kvparity_contracts import abilities


@pytest.fixture(autouse=True, scope="session")
def subjects_run_here() -> Iterator[None]:
    with here():
        yield


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    """Of a test that patches functions of ours, the next one knows nothing."""
    yield
    environment._functions, environment._handlers = {}, {}
    environment._looks = (replaced.watching({}),)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Chromium, with one tab."""
    with started(tmp_path / "profile") as found:
        yield found


@pytest.fixture
def apart(subjects_run_here: None) -> Iterator[None]:
    with here(False):
        yield


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warming.Warm]:
    """Runs whole commands, with processes of their own, without a new interpreter for each."""
    with warming.started(tmp_path_factory.mktemp("warm")) as server:
        yield server


@pytest.fixture
def every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contracts may name every path of every subject: a toy that stands in for it can do them."""
    monkeypatch.setattr(abilities, "UNABLE", {kind: {} for kind in abilities.UNABLE})

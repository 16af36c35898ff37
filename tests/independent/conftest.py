"""The scripts stand beside these tests and are imported by name; the toy's contract is shared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
sys.path.insert(0, str(Path(__file__).parent))

from kvparity.core import environment, replaced
from kvparity.core.isolation.inside import here


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

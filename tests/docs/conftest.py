"""Helpers of these tests (``pages``, ``shell``) and the scripts they test are plain modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / "ci"
sys.path[:0] = map(str, (Path(__file__).parent, CI, CI / "docs", CI / "studies"))


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory):
    """The tutorial, followed step by step in a folder of its own: (folder, what happened)."""
    from shell import follow

    folder = tmp_path_factory.mktemp("tutorial")
    return folder, follow(folder)

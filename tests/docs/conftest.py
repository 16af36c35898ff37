"""Helpers of these tests (``pages``, ``shell``) are plain modules beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "ci")]


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory):
    """The tutorial, followed step by step in a folder of its own: (folder, what happened)."""
    from shell import follow

    folder = tmp_path_factory.mktemp("tutorial")
    return folder, follow(folder)

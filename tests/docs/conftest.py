"""Helpers of these tests (``pages``, ``shell``) and the scripts they test are plain modules."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / "ci"
sys.path[:0] = map(str, (Path(__file__).parent, CI, CI / "docs", CI / "studies"))
sys.path.append(str(Path(__file__).parents[1] / "harness"))  # for server_stand_in


@pytest.fixture(scope="session")
def tutorial(once):
    """The tutorial, followed step by step in a folder of its own: (folder, what happened)."""
    from shell import follow

    def make(folder: Path) -> None:
        (folder / "ran.pickle").write_bytes(pickle.dumps(follow(folder)))

    folder = once("tutorial", make)
    return folder, pickle.loads((folder / "ran.pickle").read_bytes())

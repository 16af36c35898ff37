"""What several files here compare with."""

from __future__ import annotations

from pathlib import Path

import nodes_runs
import pytest


@pytest.fixture(scope="session")
def ran_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy on this machine, left alone."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        nodes_runs.verified(folder, patch, None)
    return folder / "run"

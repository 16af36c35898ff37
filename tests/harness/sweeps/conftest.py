"""The cells of a small sweep, and an empty store."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep_rows import SWEEP, swept

from kvparity.sweeps.planned import PlannedCell, planned
from kvparity.sweeps.store import SweepStore
from kvparity_contracts.sweep_file import load_sweep


@pytest.fixture
def cells(tmp_path: Path) -> tuple[PlannedCell, ...]:
    return planned(load_sweep(swept(tmp_path, SWEEP)))


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    found = SweepStore(tmp_path / "store")
    with found.alone():
        return found

"""A control, planted in a fixture of the matrix of defects, and located."""

from __future__ import annotations

import math

from kvparity.births.account import ROOM, Account
from kvparity.births.pairs import PairAccount
from kvparity.core.errors import UnsupportedError
from kvparity.labs.defect_matrix import locating
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES
from kvparity_contracts.controls import CONTROLS


def located(
    fixture: str, control: str | None, *, room: int = ROOM, until: float = math.inf
) -> Account | PairAccount:
    """What is found in the first workload that shows the control; None: with nothing planted."""
    row = CONTROLS[control] if control else None
    for workload in FIXTURES[fixture].contract.workloads:
        try:
            found = locating.placed(fixture, workload.name, control or "stale-slot")
        except UnsupportedError:
            continue
        return locating.located(*found, row, room=room, until=until)
    raise AssertionError(f"{fixture} shows no {control}")

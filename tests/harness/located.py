"""A control, planted in a fixture of the matrix of defects, and located."""

from __future__ import annotations

from kvparity.controls.table import Planting, planting
from kvparity.labs.defect_matrix.entries import part_of
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES
from kvparity.labs.defect_matrix.work import _build
from kvparity.locate.account import ROOM, Account, account
from kvparity.record.path_run import PathRun
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.paths import DECODE, PREFILL


def located(fixture: str, control: str | None, *, room: int = ROOM) -> Account:
    """The account of a small part of the fixture; ``control`` None: with nothing planted."""
    row = CONTROLS[control or "stale-slot"]
    contract = FIXTURES[fixture].contract
    parts = ((each.name, part_of(row, FIXTURES[fixture], each.name)) for each in contract.workloads)
    workload, part = next((name, part) for name, part in parts if part is not None)
    assert part is not None
    found = _build(fixture, "cpu")
    setting, tokens = found.setting, found.known(workload)
    plans = setting.plans(workload).part(part.sequences, part.generate)
    own = [tokens[i][: plans.prompts.length(n)] for n, i in enumerate(part.sequences)]
    defect = planting(row) if control else Planting()
    path = row.path if control else DECODE
    return account(
        PathRun(setting, defect.rescore(setting.subject), plans, PREFILL, own),
        PathRun(setting, defect.rollout(setting.subject), plans, path, own),
        room=room,
    )

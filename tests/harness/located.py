"""A control, planted in a fixture of the matrix of defects, and located."""

from __future__ import annotations

from kvparity.controls.table import Planting, planting
from kvparity.core.errors import UnsupportedError
from kvparity.labs.defect_matrix.entries import part_of
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES
from kvparity.labs.defect_matrix.work import _build
from kvparity.locate.account import ROOM, Account, account
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.execute import Tokens
from kvparity.record.path_run import PathRun, Setting
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.paths import DECODE, PREFILL, PathName


class NothingPlantedError(Exception):
    """The control cannot be planted in the fixture, or changes tokens on their way."""


def located(fixture: str, control: str | None, *, room: int = ROOM) -> Account:
    """The account of a small part of the fixture; ``control`` None: with nothing planted."""
    row = CONTROLS[control or "stale-slot"]
    contract = FIXTURES[fixture].contract
    parts = ((each.name, part_of(row, FIXTURES[fixture], each.name)) for each in contract.workloads)
    workload, part = next(((name, part) for name, part in parts if part is not None), ("", None))
    if part is None:
        raise NothingPlantedError(f"{control} in {fixture}")
    found = _build(fixture, "cpu")
    setting, tokens = found.setting, found.known(workload)
    plans = setting.plans(workload).part(part.sequences, part.generate)
    own = [tokens[i][: plans.prompts.length(n)] for n, i in enumerate(part.sequences)]
    defect = planting(row) if control else Planting()
    path = row.path if control else DECODE
    try:
        return _account(setting, defect, plans, path, own, room)
    except UnsupportedError as error:
        raise NothingPlantedError(str(error)) from error


def _account(
    setting: Setting,
    defect: Planting,
    plans: WorkloadPlans,
    path: PathName,
    own: Tokens,
    room: int,
) -> Account:
    return account(
        PathRun(setting, defect.rescore(setting.subject), plans, PREFILL, own),
        PathRun(setting, defect.rollout(setting.subject), plans, path, own),
        room=room,
    )

"""Controls, planted and located: are the cause and the first operation named right?"""

from __future__ import annotations

import math

from kvparity.births.account import ROOM, Account, account
from kvparity.births.causes import Cause, cause, first_birth
from kvparity.births.pairs import PairAccount, pair_account
from kvparity.controls.table import planting
from kvparity.core.errors import UnsupportedError
from kvparity.labs.defect_matrix.entries import Entry, part_of
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES
from kvparity.labs.defect_matrix.results import EntryResult, LocatedControl
from kvparity.labs.defect_matrix.work import build
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.execute import Tokens
from kvparity.record.path_run import PathRun, Setting
from kvparity.run.control_run import sides
from kvparity.run.unit import oracle_values
from kvparity_contracts.checks import Invariance
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.paths import DECODE, PREFILL, PathName


def placed(
    fixture: str, workload: str, control: str, device: str = "cpu"
) -> tuple[Setting, WorkloadPlans, Tokens]:
    """The part of a workload that shows a control, and its tokens.

    Raises:
        UnsupportedError: no part of it shows the control.
    """
    part = part_of(CONTROLS[control], FIXTURES[fixture], workload)
    if part is None:
        raise UnsupportedError(f"{workload} of {fixture} shows no {control}")
    found = build(fixture, device)
    tokens = found.known(workload)
    plans = found.setting.plans(workload).part(part.sequences, part.generate)
    own = [tokens[i][: plans.prompts.length(n)] for n, i in enumerate(part.sequences)]
    return found.setting, plans, own


def located(
    setting: Setting,
    plans: WorkloadPlans,
    own: Tokens,
    control: Control | None,
    *,
    room: int = ROOM,
    until: float = math.inf,
    clean: PathName = DECODE,
) -> Account | PairAccount:
    """What is found of a control; None: of nothing planted, on the path ``clean``.

    Raises:
        UnsupportedError: the control cannot be planted here.
    """
    if control is None:
        first, second = (
            PathRun(setting, setting.subject, plans, path, own) for path in (PREFILL, clean)
        )
    else:
        first, second = sides(setting, control, planting(control), plans, own, PREFILL)
    if setting.subject.vocab:
        return account(first, second, room=room, until=until)
    return pair_account(first, second, oracle_values(setting, second.plans, own))


def cause_of(found: Account | PairAccount) -> Cause:
    """Why, of a model or of a pair."""
    return found.cause if isinstance(found, PairAccount) else cause(found)


def row(control: Control, place: str, found: Account | PairAccount) -> LocatedControl:
    """What was named, beside what is true. Of a pair, which is one operation, that is named."""
    why = cause_of(found)
    pair = isinstance(found, PairAccount)
    born = None
    if isinstance(found, Account) and found.births:
        born = first_birth(found).operation
    return {
        "control": control.name,
        "habitat": place,
        "born": born,
        "complete": found.complete,
        "cause": why.kind,
        "truth": str(control.cause),
        "part": None if pair else why.part,
        "truth_part": None if pair else control.born,
        "cause_right": why.kind == control.cause,
        "first_right": None if pair else why.part == control.born,
    }


def wanted(results: list[EntryResult]) -> list[Entry]:
    """Of every control that changes bits between paths the first place where bits showed it."""
    found: dict[str, Entry] = {}
    for each in results:
        name = each["control"]
        if (each["relation"], each["found"]) == (Invariance.TAG, "caught") and CONTROLS[name].cause:
            place = Entry(name, each["habitat"], each["workload"] or "", each["relation"])
            found.setdefault(name, place)
    return list(found.values())


def locate(entries: list[Entry], device: str) -> list[LocatedControl]:
    """Locate controls in their places."""
    found = []
    for each in entries:
        control = CONTROLS[each.control]
        got = located(*placed(each.fixture, each.workload, each.control, device), control)
        found.append(row(control, each.fixture, got))
    return found

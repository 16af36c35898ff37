"""Run one case of a finished or interrupted run again, and look at its first divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from pydantic import JsonValue

from kvparity.core.bits import differing, ulps
from kvparity.core.values import Json
from kvparity.plan.cases import Case, Unit, make
from kvparity.plan.kernel_cases import KernelCase
from kvparity.plan.results import CaseLine
from kvparity.record.execute import Record
from kvparity.record.path_run import Setting
from kvparity.relations.bits_and_limits import Comparison, number
from kvparity.relations.registry import RELATIONS
from kvparity.report.case_line import case_line, kernel_line
from kvparity.report.schema import RESIGNED
from kvparity.run.recheck.outcome import told
from kvparity.run.reopen import reopen, unit_of
from kvparity.run.unit import Runner, run_case, run_unit
from kvparity.run.worker import Job, forget, look
from kvparity.subjects.base import Subject, column_name
from kvparity_contracts.loader import LoadedContract
from kvparity_kernels import device_model


class FarColumn(TypedDict):
    """One column of two rows. ``distance``: absolute."""

    column: int
    name: str
    reference: float | str
    candidate: float | str
    distance: float | str
    ulps: int


class UnlikeColumns(TypedDict):
    """How two whole rows differ: of how many columns how many, and the farthest."""

    columns: int
    differing: int
    farthest: list[FarColumn]


@dataclass(frozen=True)
class Replay:
    """The case's entry now, whether the run had the same, and the row that differs first.

    ``schema``: of the run. Under an older one ``same`` leaves out what now means something else.
    ``after_others``: the verdict of the case rerun after what came before it in the run, and
    ``as_in_run``: whether all of it is what the run had. None: not tried, since the case alone gave
    what the run had. ``moves``: whether that rerun gave another result than the case alone.
    ``fresh``: what the run found when fresh processes computed rows of a case that held.
    """

    entry: CaseLine
    recorded: Json
    same: bool
    row: UnlikeColumns | None
    schema: int
    after_others: str | None = None
    as_in_run: bool | None = None
    moves: bool = False
    fresh: str | None = None

    @property
    def keeps_state(self) -> bool:
        """Whether what a subject keeps between calls decides the case.

        Alone it is another than in the run, and behind the others it is the same; or its two sides
        agree only where one process computes both.
        """
        if self.fresh is not None and self.entry.verdict == "holds":
            return True
        verdict = self.recorded.get("verdict")
        turned = self.after_others == verdict != self.entry.verdict
        return turned or bool(self.as_in_run)

    @property
    def verdict(self) -> str:
        """The case's verdict now; ``void`` where it holds now and did not in the run.

        What differs again once the others have run does not hold, alone or not.
        """
        now = self.entry.verdict
        if now == "holds" and self.fresh is not None:
            return "differs"
        if now == "holds" != self.recorded.get("verdict"):
            return "differs" if self.keeps_state and self.after_others == "differs" else "void"
        return now


@device_model.using(None)  # what is put in force for the case ends with it
def replay(loaded: LoadedContract, folder: Path, case_id: str, device: str) -> Replay:
    """Run the case again on the tokens of the run.

    Raises:
        RunFolderError: the run has no such case, or its unit has no evidence yet.
    """
    found = reopen(loaded, folder, case_id, device)
    if found.kernel_case is not None:
        return _look_again(found.job, found.kernel_case, found.recorded, found.schema)
    opened = unit_of(found)
    case, schema, old = opened.case, found.schema, found.recorded
    result, row = _again(opened.setting, opened.runner, case)
    entry = case_line(case, result)
    now = entry.document()
    same = _lasting(now, schema) == _lasting(old, schema)
    fresh = told(folder, case_id)
    if same:
        return Replay(entry, old, same, row, schema, fresh=fresh)
    after = _after_others(opened.setting, found.loaded, opened.unit, case, opened.before)
    alike, still = (_lasting(after, schema) == _lasting(each, schema) for each in (old, now))
    return Replay(entry, old, same, row, schema, str(after["verdict"]), alike, not still, fresh)


def _after_others(
    setting: Setting, loaded: LoadedContract, unit: Unit, case: Case, before: Sequence[str]
) -> Json:
    """The case's entry once the units that were ready ``before`` its own, and its own, have run.

    A subject that keeps something between calls (a workspace, a counter, a cache) may give other
    bits then. Units of other formats have subjects of their own and are left out. Its own unit runs
    as in the run, tokens included.
    """
    units = {each.id: each for each in make(loaded.contract).units}
    for name in before:
        if name in units and units[name].numerics == case.numerics:
            run_unit(setting, units[name], tokens=None, done=frozenset(), emit=lambda *_: None)
    found: Json = {}

    def emit(each: Case, result: Comparison, *_: object) -> None:
        if each.id == case.id:
            found.update(case_line(each, result).document())

    run_unit(setting, unit, tokens=None, done=frozenset(), emit=emit)
    return found


def _look_again(job: Job, case: KernelCase, recorded: Json, schema: int) -> Replay:
    """An order certificate or an audit again; it needs no tokens. Cost in seconds may vary."""
    forget()  # what a run in this process has scored
    now = kernel_line(case, look(job, case))
    sides = (_timeless(_lasting(each, schema)) for each in (now.document(), recorded))
    return Replay(now, recorded, next(sides) == next(sides), None, schema)


def _lasting(case: Json, schema: int) -> Json:
    """What a second look must find again. Of a run, only some cases were rerun.

    A run of schema 1 measured with the other sign of d, which its words for a limit tell too.
    """
    relation = RELATIONS[str(case["relation"])]
    left_out = {"evidence", "place", *relation.varies}
    if schema < 2:
        left_out |= {*RESIGNED, "rollout", "trainer", *relation.resigned}
    return {key: it for key, it in case.items() if key not in left_out}


def _timeless(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key != "seconds"}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _again(setting: Setting, runner: Runner, case: Case) -> tuple[Comparison, UnlikeColumns | None]:
    answer = run_case(runner, case)
    result, reference, candidate = answer.found, answer.reference, answer.candidate
    if result.first_divergence is None or case.reference is None:
        return result, None
    if not isinstance(reference, Record) or not isinstance(candidate, Record):
        return result, None
    if runner.records.get(case.path) is not candidate:  # what several processes gave together
        return result, None
    place = _place(reference, candidate, case.column)
    keep = frozenset([place])
    sides = [runner.record(path, keep=keep).kept[place] for path in (case.reference, case.path)]
    return result, _row(setting.subject, *sides)


def _place(reference: Record, candidate: Record, column: int | None) -> tuple[int, int]:
    off = reference.digests != candidate.digests.to(reference.digests.device)
    values = differing(reference.values, candidate.values.to(reference.values.device))
    off |= values.any(-1) if column is None else values[:, column]
    return reference.index[int(torch.nonzero(off)[0])] if bool(off.any()) else reference.index[0]


def _row(subject: Subject, reference: torch.Tensor, candidate: torch.Tensor) -> UnlikeColumns:
    """How the two whole rows differ: count, and the farthest columns with both values.

    Farthest in absolute distance: a column near zero may be many ulps off and matter least.
    """
    a, b = reference.float(), candidate.float()
    off = differing(a, b)
    distance = torch.nan_to_num((a.double() - b.double()).abs(), nan=torch.inf)
    top = torch.topk(torch.where(off, distance, -1.0), k=min(5, len(a))).indices
    apart = ulps(a, b)
    return {
        "columns": len(a),
        "differing": int(off.sum()),
        "farthest": [
            {
                "column": int(c),
                "name": column_name(subject, int(c)),
                "reference": number(a[c]),
                "candidate": number(b[c]),
                "distance": number(distance[c]),
                "ulps": int(apart[c]),
            }
            for c in top
            if bool(off[c])
        ],
    }

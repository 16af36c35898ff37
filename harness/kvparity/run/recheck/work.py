"""Compute the chosen rows of some paths of a unit, as the unit computed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvparity.plan.schedule import Plan
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.execute import Record, Tokens
from kvparity.record.path_run import PathRun, Setting
from kvparity.report.lines import Row
from kvparity.run.recheck.choice import Place, chosen, needed
from kvparity.run.recheck.rows import rows_of
from kvparity_contracts.paths import PathName


def places_of(plans: WorkloadPlans, unit: str, path: PathName) -> tuple[Place, ...]:
    """The rows of a path that are computed again."""
    return chosen(plans.of(path), seed=plans.seed, unit=unit, path=str(path))


def recorded(plans: WorkloadPlans, unit: str, path: PathName, record: Record) -> tuple[Row, ...]:
    """What a run keeps of a path: its chosen rows."""
    return rows_of(record, places_of(plans, unit, path))


def again(
    setting: Setting, unit: str, workload: str, paths: Sequence[PathName], tokens: Tokens
) -> dict[str, tuple[Row, ...]]:
    """The chosen rows of ``paths``, computed now, one path after the other."""
    plans = setting.plans(workload)
    found = {}
    for path in paths:
        places = places_of(plans, unit, path)
        if places:
            record = _part(setting, plans, path, tokens, places)
            found[str(path)] = rows_of(record, places)
    return found


def _part(
    setting: Setting,
    plans: WorkloadPlans,
    path: PathName,
    tokens: Tokens,
    places: tuple[Place, ...],
) -> Record:
    """The record of the part of a path that the rows need."""

    def cut(plan: Plan) -> Plan:
        return needed(plan, places)

    if path.kind != "generate":
        return PathRun(setting, setting.subject, plans, path, tokens).run(cut=cut)
    (sequence,) = {place[0] for place in places}  # its plan has this one member
    record = PathRun(setting, setting.subject, plans, path, [tokens[sequence]]).run(cut=cut)
    return replace(record, index=tuple((sequence, position) for _, position in record.index))

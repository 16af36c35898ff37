"""Lines of paths are believed only where they are planned: a resumed run rests on them.

See :mod:`kvparity.report.evidence_check`, which does the same for what is finished.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvparity.plan.cases import Unit, Work
from kvparity.relations.registry import path_relation
from kvparity.report.lines import PathLine, edited, parsed
from kvparity.report.run_dir import Evidence
from kvparity_contracts.paths import PathName


def check(evidence: Evidence, work: Work) -> None:
    """Look at all of them.

    Raises:
        RunFolderError: a line that is not planned, stands twice, or is none of a path.
    """
    units = {unit.id: unit for unit in work.units}
    planned = {unit.id: planned_paths(unit) for unit in work.units}
    seen: dict[tuple[str, str, bool], int] = {}
    for number, line in evidence.read(PathLine):
        place, key = f"{evidence.folder / line.file}:{number}", (line.unit, *line.key)
        what = f"path {line.path} of {line.unit!r}"
        if line.unit not in planned:
            raise edited(place, f"the unit {line.unit!r} is not in this contract's plan")
        if line.key not in planned[line.unit]:
            how = "with a probe" if line.probed else "without a probe"
            raise edited(place, f"{what} {how} is not planned")
        if key in seen:
            raise edited(place, f"line {seen[key]} holds {what} already")
        seen[key] = number
        _drawn(units[line.unit], line, place)


def require_drawn(evidence: Evidence, unit: Unit) -> None:
    """Look whether the drawn paths of a unit ran the steps that are drawn now.

    Raises:
        RunFolderError: one ran others; another version drew them, or they were edited.
    """
    for number, line in evidence.read(PathLine):
        if line.unit == unit.id:
            _drawn(unit, line, f"{evidence.folder / line.file}:{number}")


def _drawn(unit: Unit, line: PathLine, place: str) -> None:
    if line.steps != unit.plans.steps(PathName.parse(line.path)):
        raise edited(place, f"path {line.path} ran other steps than are drawn now")


def of_unit(evidence: Evidence, unit: Unit) -> Iterator[PathLine]:
    """The lines of one unit's paths. Raises as ``check`` does, of one that is none of a path."""
    for number, value in evidence.numbered(PathLine.file):
        if value.get("unit") == unit.id:  # of the others there may be very many
            yield parsed(PathLine, value, f"{evidence.folder / PathLine.file}:{number}")


def planned_paths(unit: Unit) -> frozenset[tuple[str, bool]]:
    """(path, whether it is probed) of all that may run in a unit."""
    found = {(str(unit.rollout), False)}
    for case in unit.cases:
        probed = path_relation(case.relation).probes
        found |= {(str(path), probed) for path in (case.path, case.reference) if path is not None}
    return frozenset(found)

"""Lines of paths are believed only where they are planned and whole: a resumed run rests on them.

See :mod:`kvparity.report.evidence_check`, which does the same for what is finished.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kvparity.core.errors import RunFolderError
from kvparity.plan.cases import Unit, Work
from kvparity.report.run_dir import Evidence
from kvparity.report.unit_paths import path_key

Entry = Mapping[str, Any]
_FILE = "paths.jsonl"
_PROBING = ("liveness", "trace")
"""Relations whose paths run with a probe, so that their rows are not those of the path."""
_BITS = re.compile(r"0x[0-9a-f]+")
_DIGEST = re.compile(r"0x[0-9a-f]{16}")


def check(evidence: Evidence, work: Work) -> None:
    """Look at all of them.

    Raises:
        RunFolderError: a line that is not planned, stands twice, or lacks something.
    """
    planned = {unit.id: planned_paths(unit) for unit in work.units}
    seen: dict[tuple[str, str, bool], int] = {}
    for number, line in evidence.numbered(_FILE):
        place, unit = f"{evidence.folder / _FILE}:{number}", line.get("unit")
        path, probed = path_key(line)
        if not isinstance(unit, str) or unit not in planned:
            raise _refused(place, f"holds the unit {unit!r}, which this contract does not plan")
        what = f"path {path} of {unit!r}"
        if (wrong := damage(line)) is not None:
            raise _refused(place, f"{what}: {wrong}")
        if (path, probed) not in planned[unit]:
            how = "with a probe" if probed else "without a probe"
            raise _refused(place, f"holds {what} {how}, which is not planned")
        if (unit, path, probed) in seen:
            first = seen[unit, path, probed]
            raise _refused(place, f"holds {what}, which line {first} holds already")
        seen[unit, path, probed] = number


def of_unit(evidence: Evidence, unit: Unit) -> Iterator[Entry]:
    """The lines of one unit's paths. Raises as ``check`` does, of a line that lacks something."""
    for number, line in evidence.numbered(_FILE):
        if line.get("unit") != unit.id:
            continue
        if (wrong := damage(line)) is not None:
            raise _refused(f"{evidence.folder / _FILE}:{number}", wrong)
        yield line


def planned_paths(unit: Unit) -> frozenset[tuple[str, bool]]:
    """(path, whether it is probed) of all that may run in a unit."""
    found = {(str(unit.rollout), False)}
    for case in unit.cases:
        probed = case.relation in _PROBING
        found |= {(str(path), probed) for path in (case.path, case.reference) if path is not None}
    return frozenset(found)


def damage(line: Entry) -> str | None:
    """What a line lacks, or None."""
    if type(line.get("probed")) is not bool:
        return f"probed is {line.get('probed')!r}, expected true or false"
    if not _counts(line.get("observed")):
        return "observed is no mapping of names to counts"
    launches = line.get("launches")
    if not isinstance(launches, dict) or not _counts(launches.get("counts")):
        return "launches has no counts"
    kernels = launches.get("kernels")
    if not isinstance(kernels, dict) or not all(isinstance(x, dict) for x in kernels.values()):
        return "launches has no kernels"
    seconds = line.get("seconds", "missing")
    if seconds is not None and (type(seconds) not in (int, float) or seconds < 0):
        return f"seconds is {seconds!r}"
    if line["probed"]:
        return "it was probed, and has rows" if "rows" in line else None
    return rows_wrong(line.get("rows"))


def rows_wrong(rows: object) -> str | None:
    """Why the rows of one path cannot be, or None: up to three of one sequence, in order."""
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        return "rows is no list of [sequence, position, digest, bits]"
    places = [tuple(row[:2]) for row in rows]
    if places != sorted(set(places)) or len({place[0] for place in places}) > 1:
        return f"its rows are at {[list(place) for place in places]}"
    return None


def _is_row(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 4:
        return False
    sequence, position, digest, bits = row
    numbers = all(type(each) is int and each >= 0 for each in (sequence, position))
    digests = isinstance(digest, str) and _DIGEST.fullmatch(digest)
    return bool(
        numbers
        and digests
        and isinstance(bits, list)
        and all(isinstance(each, str) and _BITS.fullmatch(each) for each in bits)
    )


def _counts(found: object) -> bool:
    return isinstance(found, dict) and all(type(n) is int and n >= 0 for n in found.values())


def _refused(place: str, wrong: str) -> RunFolderError:
    return RunFolderError(
        f"{place} {wrong}. It was changed since it was written: remove the line, and --resume runs "
        "the path again where it is needed, or use a new --run-dir"
    )

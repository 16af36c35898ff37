"""Evidence is believed only where it agrees with the plan and with itself.

What a run folder holds may have been edited, copied together or damaged since it was written. A
line that contradicts itself is refused with its place, before anything is judged by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from kvparity.core.errors import RunFolderError
from kvparity.plan.cases import Case, ControlRun, Work
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.report.evidence_verdict import contradiction, control_contradiction
from kvparity.report.failure_file import damage
from kvparity.report.lines import rows_wrong
from kvparity.report.run_dir import Evidence
from kvparity_contracts.checks import Accuracy
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS

Entry = dict[str, Any]


def cases(evidence: Evidence, contract: Contract, work: Work) -> list[Entry]:
    """The finished cases, in the order in which they ended.

    Raises:
        RunFolderError: a line that is not planned, stands twice, or contradicts itself.
    """
    planned: dict[Any, Case | KernelCase] = {c.id: c for unit in work.units for c in unit.cases}
    planned |= {case.id: case for case in work.kernel_cases}
    found = []
    for place, name, line in _each(evidence, "cases.jsonl", lambda line: line["id"], planned):
        case = planned[name]
        wrong = _misplaced(case, line) or contradiction(line, _limits(contract, case))
        if wrong is None and "evidence" in line:
            wrong = damage(evidence.folder, line)
        if wrong is not None:
            raise _refused(place, f"case {name}", wrong)
        found.append(line)
    return found


def controls(evidence: Evidence, work: Work) -> list[Entry]:
    """The finished controls. Raises as ``cases`` does."""
    planned = {(each.control, each.relation): each for each in work.every_control}
    found = []
    for place, name, line in _each(evidence, "controls.jsonl", _control_name, planned):
        wrong = control_contradiction(line) or _other_control(planned[name], line)
        if wrong is not None:
            raise _refused(place, f"control {name[0]}", wrong)
        found.append(line)
    return found


def units(evidence: Evidence, work: Work) -> list[Entry]:
    """The finished units. Raises as ``cases`` does."""
    planned = {unit.id: unit for unit in work.units}
    found = []
    for place, name, line in _each(evidence, "units.jsonl", lambda line: line["unit"], planned):
        wrong = _tokens_wrong(line)
        if wrong is not None:
            raise _refused(place, f"unit {name!r}", wrong)
        found.append(line)
    return found


def whole(evidence: Evidence, work: Work) -> None:
    """Nothing that ran is missing.

    Raises:
        RunFolderError: a line is gone that was written.
    """
    planned = {
        "cases.jsonl": [case.id for unit in work.units for case in unit.cases]
        + [case.id for case in work.kernel_cases],
        "units.jsonl": [unit.id for unit in work.units],
    }
    for (file, names), key in zip(planned.items(), ("id", "unit"), strict=True):
        there = {line[key] for line in evidence.lines(file)}
        missing = [repr(name) for name in names if name not in there]
        if missing:
            raise RunFolderError(
                f"{evidence.folder / file} has no line of {', '.join(missing[:8])}, which ran: "
                "another process wrote to the run folder; --resume runs it again"
            )


def _control_name(line: Mapping[str, Any]) -> tuple[Any, Any]:
    return line["name"], line.get("relation")


def _each(
    evidence: Evidence, file: str, name_of: Any, planned: Mapping[Any, Any]
) -> Iterator[tuple[str, Any, Entry]]:
    """(place, name, line) of each line of a file; each is planned, and stands once."""
    path, seen = evidence.folder / file, dict[Any, int]()
    for number, line in evidence.numbered(file):
        name = name_of(line)
        if not _hashable(name) or name not in planned:
            raise RunFolderError(
                f"{path}:{number} holds {name!r}, which this contract does not plan; remove the "
                "line, or use a new --run-dir"
            )
        if name in seen:
            raise RunFolderError(
                f"{path}:{number} holds {name!r}, which line {seen[name]} holds already; one of "
                "them was added since: remove it, or use a new --run-dir"
            )
        seen[name] = number
        yield f"{path}:{number}", name, line


def _hashable(name: Any) -> bool:
    parts = name if isinstance(name, tuple) else (name,)
    return all(isinstance(part, str) for part in parts)


def _refused(place: str, what: str, wrong: str) -> RunFolderError:
    return RunFolderError(
        f"{place}: {what} contradicts itself: {wrong}. It was changed since it was written: remove "
        "the line, and --resume runs it again, or use a new --run-dir"
    )


def _misplaced(case: Case | KernelCase, line: Entry) -> str | None:
    """Where a line says something else of its case than the plan does."""
    wanted: dict[str, Any] = {
        "check": case.check,
        "relation": case.relation,
        "dtype": case.numerics.execution,
        "kv_cache": case.numerics.kv_cache,
    }
    if isinstance(case, Case):
        wanted |= {
            "workload": case.workload,
            "path": str(case.path),
            "reference": None if case.reference is None else str(case.reference),
            "temperature": case.temperature,
        }
    paths = {wanted.get("path"), wanted.get("reference")}
    return _unlike(line, wanted) or _repeats_wrong(line, paths)


def _repeats_wrong(line: Entry, paths: set[Any]) -> str | None:
    details = line.get("invariance")
    repeats = details.get("repeats", {}) if isinstance(details, dict) else {}
    if not isinstance(repeats, dict) or not repeats.keys() <= paths:
        return f"repeats is {repeats!r}, expected its two paths"
    if not all(type(same) is bool for same in repeats.values()):
        return f"repeats is {repeats!r}, expected true or false of each path"
    return None


def _other_control(control: ControlRun | KernelControl, line: Entry) -> str | None:
    """Where a line says something else of its control than the plan does."""
    fact = CONTROLS[control.control]
    place = control.case if isinstance(control, KernelControl) else control
    wanted = {
        "by": place.check,
        "workload": place.workload if isinstance(place, ControlRun) else None,
        "path": str(fact.path),
        "numerics": asdict(place.numerics),
        "expected": fact.expect,
    }
    return _unlike(line, wanted)


def _unlike(line: Entry, wanted: Mapping[str, Any]) -> str | None:
    for key, value in wanted.items():
        if line.get(key) != value:
            return f"{key} is {line.get(key)!r}, and {value!r} is planned"
    return None


def _limits(contract: Contract, case: Case | KernelCase) -> Mapping[str, float]:
    """The limits of an accuracy case; none of any other."""
    check = next(c for c in contract.checks if c.name == case.check)
    if not isinstance(check, Accuracy):
        return {}
    return check.limits_for(case.numerics.execution).given()


def _tokens_wrong(line: Entry) -> str | None:
    sequences = line.get("sequences")
    if not isinstance(sequences, list) or not sequences:
        return "it has no sequences"
    for each in sequences:
        ids = each.get("ids") if isinstance(each, dict) else None
        if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
            return "a sequence has no list of token ids"
        prompt = each.get("prompt")
        if type(prompt) is not int or not 0 < prompt < len(ids):
            return f"sequence {each.get('id')!r} has {len(ids)} ids and a prompt of {prompt!r}"
    for key in ("subject", "observed", "launches", "seconds", "rows"):
        if not isinstance(line.get(key), dict):
            return f"{key} is missing"
    for path, rows in line["rows"].items():
        if (wrong := rows_wrong(rows)) is not None:
            return f"path {path}: {wrong}"
    return None

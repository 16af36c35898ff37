"""Evidence is believed only where it agrees with the plan and with itself.

What a run folder holds may have been edited, copied together or damaged since it was written. A
line that contradicts itself is refused with its place, before anything is judged by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from kvparity.core.errors import RunFolderError
from kvparity.core.values import Json
from kvparity.plan.cases import Case, ControlRun, Unit, Work
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import CaseLine, ControlLine
from kvparity.plan.workload import Prompts, fill
from kvparity.relations.registry import RELATIONS
from kvparity.report.case_line import planned_of
from kvparity.report.failure_file import damage
from kvparity.report.lines import UnitLine, edited, parsed
from kvparity.report.run_dir import Evidence
from kvparity_contracts.contract import Contract

Planned = TypeVar("Planned")


def cases(evidence: Evidence, contract: Contract, work: Work) -> list[CaseLine]:
    """The finished cases, in the order in which they ended.

    Raises:
        RunFolderError: a line that is not planned, stands twice, or contradicts itself.
    """
    planned: dict[object, Case | KernelCase] = {c.id: c for unit in work.units for c in unit.cases}
    planned |= {case.id: case for case in work.kernel_cases}
    found = []
    for place, case, value in _each(evidence, CaseLine.file, ("id",), planned):
        line = parsed(RELATIONS[case.relation].line, value, place)
        wrong = (
            _misplaced(case, line)
            or _other_limits(contract, case, line)
            or line.less_than(contract.check(case.check))
            or damage(evidence.folder, line)
        )
        if wrong is not None:
            raise edited(place, f"case {case.id}: {wrong}")
        found.append(line)
    return found


def controls(evidence: Evidence, work: Work) -> list[ControlLine]:
    """The finished controls. Raises as ``cases`` does."""
    planned: dict[object, ControlRun | KernelControl] = {
        (each.control, each.relation): each for each in work.every_control
    }
    found = []
    for place, control, value in _each(evidence, ControlLine.file, ("name", "relation"), planned):
        line = parsed(ControlLine, value, place)
        wrong = _unlike(line, planned_of(control))
        if wrong is not None:
            raise edited(place, f"control {line.name}: {wrong}")
        found.append(line)
    return found


def units(evidence: Evidence, contract: Contract, work: Work) -> list[UnitLine]:
    """The finished units. Raises as ``cases`` does."""
    planned: dict[object, Unit] = {unit.id: unit for unit in work.units}
    found = []
    for place, unit, value in _each(evidence, UnitLine.file, ("unit",), planned):
        line = parsed(UnitLine, value, place)
        workload = next(each for each in contract.workloads if each.name == unit.workload)
        wrong = _other_sequences(fill(workload, seed=contract.seed, vocab=0), line)
        if wrong is not None:
            raise edited(place, wrong)
        found.append(line)
    return found


def _other_sequences(wanted: Prompts, line: UnitLine) -> str | None:
    """Where a line has other sequences than its workload; of a kernel pair all ids are 0."""
    names = tuple(each.id for each in line.sequences)
    if names != wanted.ids:
        return f"its sequences are {list(names)}, and {list(wanted.ids)} is planned"
    for number, (found, prompt) in enumerate(zip(line.sequences, wanted.prompts, strict=True)):
        tokens = len(found.ids), found.prompt
        if tokens != (planned := (wanted.length(number), len(prompt))):
            return (
                f"{found.id} has {tokens[0]} ids and a prompt of {tokens[1]}, and {planned[0]} "
                f"and {planned[1]} are planned"
            )
        begins = found.ids[: found.prompt]
        if begins != prompt and any(found.ids):
            return f"the prompt of {found.id} is not the one that is planned"
    return None


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


def _each(
    evidence: Evidence, file: str, keys: tuple[str, ...], planned: Mapping[object, Planned]
) -> Iterator[tuple[str, Planned, Json]]:
    """(place, what is planned, value) of each line of a file; each is planned, and stands once."""
    path, seen = evidence.folder / file, dict[object, int]()
    for number, value in evidence.numbered(file):
        names = tuple(value.get(key) for key in keys)
        name = names[0] if len(names) == 1 else names
        if not all(isinstance(each, str) for each in names) or name not in planned:
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
        yield f"{path}:{number}", planned[name], value


def _misplaced(case: Case | KernelCase, line: CaseLine) -> str | None:
    """Where a line says something else of its case than the plan does."""
    wanted: dict[str, object] = {
        "check": case.check,
        "dtype": case.numerics.execution,
        "kv_cache": case.numerics.kv_cache,
        "device": case.numerics.device,
    }
    if isinstance(case, Case):
        wanted |= {
            "workload": case.workload,
            "path": str(case.path),
            "reference": None if case.reference is None else str(case.reference),
            "temperature": case.temperature,
        }
    if line.recheck is not None:
        return "recheck is 'differs', which only a report says"
    return _unlike(line, wanted)


def _unlike(line: CaseLine | ControlLine, wanted: Mapping[str, object]) -> str | None:
    """Where a line says something else than the plan does."""
    for key, value in wanted.items():
        if (found := getattr(line, key)) != value:
            return f"{key} is {found!r}, and {value!r} is planned"
    return None


def _other_limits(contract: Contract, case: Case | KernelCase, line: CaseLine) -> str | None:
    """Where an accuracy case was checked against other limits than those of its check."""
    wanted = contract.check(case.check).limits_in(case.numerics.execution)
    found = line.limits
    return None if found in (None, wanted) else f"limits is {found!r}, and {wanted!r} is planned"

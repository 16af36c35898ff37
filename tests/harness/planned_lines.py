"""Lines of a run folder that nobody ran, as its plan has them, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import run_documents
import toy

from kvparity.plan.cases import Case, make
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.workload import fill
from kvparity.report import evidence_check, evidence_paths
from kvparity.report.run_dir import Evidence
from kvparity_contracts.controls import CONTROLS

CONTRACT = toy.contract(
    checks=[
        {"name": "bits", "relation": "invariance", "paths": ["decode", "batched"]},
        {"name": "near", "relation": "accuracy", "paths": ["batched"],
         "limits": {"max_abs_dlogp": 1e-5}},
        {"name": "live", "relation": "liveness", "paths": ["decode"]},
        {"name": "traced", "relation": "trace", "paths": ["mixed"]},
        {"name": "held", "relation": "cache", "paths": ["mixed"]},
        {"name": "order", "relation": "order", "keys": [65, 130]},
    ],
)  # fmt: skip
WORK = make(CONTRACT)
CASES: list[Case | KernelCase] = [c for unit in WORK.units for c in unit.cases]
CASES += WORK.kernel_cases
FILES = ("cases.jsonl", "units.jsonl", "controls.jsonl", "paths.jsonl")
Line = dict[str, Any]
PLANNED = (
    "id", "check", "dtype", "kv_cache", "workload", "path", "reference", "temperature",
)  # fmt: skip


def case_line(case: Case | KernelCase) -> Line:
    """A case that is void: its counts are enough."""
    line = run_documents.case(
        id=case.id, check=case.check, relation=case.relation, verdict="void",
        dtype=case.numerics.execution, kv_cache=case.numerics.kv_cache, tokens=0,
    )  # fmt: skip
    if isinstance(case, Case):
        reference = None if case.reference is None else str(case.reference)
        line |= {"workload": case.workload, "path": str(case.path), "reference": reference,
                 "temperature": case.temperature}  # fmt: skip
    return line


def unit_line(name: str) -> Line:
    workload = next(each for each in CONTRACT.workloads if name.startswith(each.name))
    prompts = fill(workload, seed=CONTRACT.seed, vocab=0)
    sequences = [
        {"id": own, "prompt": len(prompt), "ids": [*prompt, *[7] * prompts.generate]}
        for own, prompt in zip(prompts.ids, prompts.prompts, strict=True)
    ]
    rows = {"decode": rows_at((0, 0), (0, 1)), "batched": []}
    return {"unit": name, "sequences": sequences, "rows": rows} | {
        key: {} for key in ("subject", "observed", "launches", "seconds")
    }


def control_line(control: Any) -> Line:
    fact = CONTROLS[control.control]
    place = control.case if isinstance(control, KernelControl) else control
    return run_documents.control(
        name=control.control, relation=control.relation, caught=False, seen="holds: x",
        by=place.check, workload=getattr(place, "workload", None), path=str(fact.path),
        expected=fact.expect,
    )  # fmt: skip


def rows_at(*places: tuple[int, int]) -> list[Any]:
    return [[*place, "0x" + "a" * 16, ["0x3f"]] for place in places]


def path_line(unit: str, path: str, probed: bool) -> Line:
    line: Line = {"unit": unit, "path": path, "probed": probed, "observed": {"attention": 0}}
    line |= {
        "launches": {"counts": {"a": 0}, "kernels": {"a": {}}},
        "seconds": None if probed else 0,
    }
    return line if probed else line | {"rows": rows_at((1, 0), (1, 2))}


def planned() -> dict[str, list[Line]]:
    paths = [
        path_line(unit.id, path, probed)
        for unit in WORK.units
        for path, probed in sorted(evidence_paths.planned_paths(unit))
    ]
    return {
        "cases.jsonl": [case_line(case) for case in CASES],
        "units.jsonl": [unit_line(unit.id) for unit in WORK.units],
        "controls.jsonl": [control_line(each) for each in WORK.every_control],
        "paths.jsonl": paths,
    }


def kept(folder: Path, lines: dict[str, list[Line]]) -> Evidence:
    for name, each in lines.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in each))
    return Evidence(folder)


READERS: dict[str, Callable[[Evidence], Any]] = {
    "cases.jsonl": lambda evidence: evidence_check.cases(evidence, CONTRACT, WORK),
    "units.jsonl": lambda evidence: evidence_check.units(evidence, CONTRACT, WORK),
    "controls.jsonl": lambda evidence: evidence_check.controls(evidence, WORK),
    "paths.jsonl": lambda evidence: [
        line for unit in WORK.units for line in evidence_paths.of_unit(evidence, unit)
    ],
}


def believed(evidence: Evidence) -> dict[str, list[Line]]:
    evidence_paths.check(evidence, WORK)
    evidence_check.whole(evidence, WORK)
    return {
        file: [line.document() for line in reader(evidence)] for file, reader in READERS.items()
    }

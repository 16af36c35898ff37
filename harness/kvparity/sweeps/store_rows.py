"""What a store keeps of a verification: a row for each case, or for what had none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from kvparity.core.groups import grouped
from kvparity.core.values import Value
from kvparity.plan.kernel_cases import KernelNumerics
from kvparity.plan.results import CaseLine, Divergence, Outcome
from kvparity.report.document import CheckOfRun, RunReport
from kvparity.report.lines import Row, UnitLine
from kvparity.report.run_dir import Evidence

Units = Mapping[str, Sequence[UnitLine]]
"""By name."""
PACKAGES = ("kvparity", "torch", "triton", "transformers")
"""What has a column of its own; ``packages`` has all."""


class StoreRow(Value):
    """A case. ``case`` is None for a check without one, ``check`` too for a cell without one."""

    cell: str
    """by which the verification is found again"""
    sweep: str | None
    """None for a run that was added"""
    contract: str
    contract_sha256: str | None
    environment: str | None
    """the name that the sweep gives it"""
    claim: str | None
    """the check's name"""
    relation: str | None
    case_id: str | None
    workload: str | None
    path: str | None
    reference: str | None
    verdict: Outcome
    """of the case; of the claim or the cell where it has none"""
    reason: str
    claim_verdict: Outcome
    claim_reason: str
    cell_verdict: Outcome
    cell_reason: str
    first_divergence: str | None
    max_ulp: int | None
    digest: str | None
    """of the compared rows that the run kept"""
    dtype: str | None
    kv_cache: str | None
    seed: int | None
    device: str
    device_name: str | None
    attempts: int | None = None
    """how often the verification was begun; more than 1 where machines of Ray were lost. What has
    a default may be missing in a store that an earlier version wrote"""
    sources: str | None = None
    """a hash of the contract's own source files, prompts and recordings; None: it has none, or an
    earlier version wrote the row"""
    measured: bool | None = None
    """False: nothing was verified, because its environment cannot; its row is replaced once it can.
    None: it was"""
    device_uuid: str | None
    """where the case says on which device it ran"""
    python: str | None
    kvparity: str | None
    torch: str | None
    triton: str | None
    transformers: str | None
    packages: str
    """all of them, as JSON"""
    ended: datetime
    run: str | None
    """the folder of the evidence"""


class CellHead(Value):
    """What all rows of a verification have in common beside its report."""

    cell: str
    sweep: str | None = None
    environment: str | None = None
    attempts: int = 1
    run: str | None
    ended: datetime


def rows_of(head: CellHead, report: RunReport, evidence: Path) -> tuple[StoreRow, ...]:
    """Every case of a report, and every check that has none."""
    units = grouped((line for _, line in Evidence(evidence).read(UnitLine)), lambda line: line.unit)
    whole = dict(head) | _of_all(report)
    return tuple(
        _row(whole, check, case, units)
        for check in report.checks
        for case in check.cases or (None,)
    )


def bare_row(
    head: CellHead,
    *,
    contract: str,
    sha256: str | None,
    sources: str | None,
    verdict: Outcome,
    reason: str,
    device: str,
    dtype: str | None,
    seed: int | None,
    packages: Mapping[str, str | None],
) -> StoreRow:
    """A verification that gave no report, or none of what was asked for."""
    empty: dict[str, object] = dict.fromkeys(StoreRow.model_fields)
    words = {"verdict": verdict, "reason": reason}
    return StoreRow.model_validate(
        empty
        | dict(head)
        | words
        | {f"{part}_{key}": word for part in ("claim", "cell") for key, word in words.items()}
        | {"contract": contract, "contract_sha256": sha256, "device": device, "dtype": dtype}
        | {"sources": sources}
        | {"seed": seed, "packages": json.dumps(dict(packages)), "python": packages.get("python")}
        | {name: packages.get(name) for name in PACKAGES}
    )


def hash_of_sources(sources: Mapping[str, str] | None) -> str | None:
    """Of a contract's own files, by name and hash; None: it has none, or they are not known."""
    text = json.dumps(sorted(sources.items())) if sources else None
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]


def _of_all(report: RunReport) -> dict[str, object]:
    """What all rows of a report have in common."""
    environment = report.environment
    return {name: environment.versions.get(name) for name in PACKAGES} | {
        "contract": report.contract.name,
        "contract_sha256": report.contract.sha256,
        "sources": hash_of_sources(report.contract.sources),
        "cell_verdict": report.verdict,
        "cell_reason": _first_bad(report),
        "seed": report.contract.seed,
        "device": environment.device,
        "device_name": environment.device_name,
        "python": environment.python,
        "packages": json.dumps(environment.versions),
    }


def _row(
    whole: Mapping[str, object], check: CheckOfRun, case: CaseLine | None, units: Units
) -> StoreRow:
    found: dict[str, object] = dict.fromkeys(StoreRow.model_fields)
    found |= whole
    found |= {
        "claim": check.name,
        "relation": check.relation,
        "verdict": check.verdict,
        "reason": check.reason,
        "claim_verdict": check.verdict,
        "claim_reason": check.reason,
    }
    if case is not None:
        divergence = case.first_divergence
        found |= {
            "case_id": case.id,
            "workload": case.workload,
            "path": case.path,
            "reference": case.reference,
            "verdict": case.verdict,
            "reason": case.reason,
            "first_divergence": None if divergence is None else _place(divergence),
            "max_ulp": case.max_ulp,
            "device_uuid": None if case.place is None else case.place.uuid,
            "digest": _digest(case, units),
            "dtype": case.dtype,
            "kv_cache": case.kv_cache,
        }
    return StoreRow.model_validate(found)


def _first_bad(report: RunReport) -> str:
    """Why the whole is what it is."""
    if report.verdict == "holds":
        return f"{len(report.checks)} checks hold"
    bad = next(each for each in report.checks if each.verdict == report.verdict)
    return f"{bad.name}: {bad.reason}"


def _place(found: Divergence) -> str:
    name = "" if found.name is None else f", {found.name}"
    return (
        f"{found.sequence}, position {found.position}{name}: {found.reference_bits} against "
        f"{found.candidate_bits}"
    )


def _digest(case: CaseLine, units: Units) -> str | None:
    """Of the rows that the run kept of both sides, with their digests and bits; None: of none."""
    rows = [
        (path, sequence, position, digest, bits)
        for path, kept in _kept(case, units)
        for sequence, position, digest, bits in kept
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] if rows else None


def _kept(case: CaseLine, units: Units) -> Iterator[tuple[str, tuple[Row, ...]]]:
    formats = KernelNumerics(case.dtype, case.kv_cache, case.device)
    for unit in units.get(f"{case.workload}, {formats}", ()):
        for path in (case.path, case.reference):
            if path in unit.rows:
                yield str(path), unit.rows[str(path)]


def now() -> datetime:
    """Universal time, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)

"""Rows of a store, reports and cells, with what a test changes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import run_documents

from kvparity.report.document import RunReport
from kvparity.sweeps.carry_out import CellEnd
from kvparity.sweeps.installed import Installed
from kvparity.sweeps.planned import PlannedCell
from kvparity.sweeps.store import SweepStore
from kvparity.sweeps.store_rows import StoreRow

SWEEP = """\
version: 1
name: some
contracts: [tiny.yaml]
dtypes: [float32, bfloat16]
versions:
  - {name: old, packages: {transformers: 5.23.0}}
  - {name: new, packages: {transformers: 5.24.0}}
"""
BEGAN = datetime(2026, 11, 30, 12, tzinfo=timezone.utc)
VERSIONS = {"kvparity": "0.1.0", "torch": "2.13.0+cpu", "triton": "3.9.0", "transformers": "5.23.0"}


def row(transformers: str | None = "5.23.0", verdict: str = "holds", **changes: Any) -> StoreRow:
    """A case; ``at`` minutes after the others."""
    at = changes.pop("at", 0)
    packages = {**VERSIONS, **changes.pop("packages", {}), "transformers": transformers}
    empty: dict[str, Any] = dict.fromkeys(StoreRow.model_fields)
    return StoreRow.model_validate(
        empty
        | {"cell": f"{transformers}-{verdict}-{at}", "contract": "paged", "claim": "same bits",
           "contract_sha256": "ab", "case_id": "c000", "dtype": "float32", "seed": 0,
           "verdict": verdict, "reason": f"it {verdict}", "device": "cpu",
           "device_name": "Some CPU", "python": "3.11.7", "environment": "some",
           "ended": BEGAN + timedelta(minutes=at), "packages": json.dumps(packages)}
        | {f"{part}_verdict": verdict for part in ("claim", "cell")}
        | {f"{part}_reason": "why" for part in ("claim", "cell")}
        | {name: packages[name] for name in VERSIONS}
        | changes
    )  # fmt: skip


def report(planned: PlannedCell, verdict: str = "holds", **changes: Any) -> dict[str, Any]:
    """The document of a run that is all that a cell asks for, but for ``changes``."""
    dtype = changes.pop("dtype", planned.cell.dtype)
    own = {} if verdict != "differs" else {
        "differing_tokens": 1, "differing_rows": 1, "first_divergence": run_documents.DIVERGENCE,
    }  # fmt: skip
    case = run_documents.case(verdict=verdict, dtype=dtype, kv_cache=dtype, **own)
    found = run_documents.report(verdict, case)
    found["contract"] |= {"name": planned.name, "sha256": planned.given.sha256}
    found["contract"]["seed"] = changes.pop("seed", planned.seed)
    found["contract"]["sources"] = changes.pop("sources", {})
    found["contract"]["sha256"] = changes.pop("sha256", planned.given.sha256)
    found["environment"]["versions"] = VERSIONS | dict(planned.environment.packages)
    found["environment"]["versions"] |= changes.pop("versions", {})
    found["environment"] |= changes.pop("environment", {})
    found["subject"] |= changes.pop("subject", {})
    assert not changes
    RunReport.model_validate(found)
    return found


def ended(
    planned: PlannedCell, store: SweepStore, document: dict[str, Any] | None, code: int
) -> CellEnd:
    """What a process of a cell leaves, with a report or without."""
    folder = store.run(planned.id)
    folder.mkdir(parents=True)
    if document is None:
        there = Installed({**VERSIONS, **planned.environment.packages, "python": "3.11.7"})
        return CellEnd(code, "kvparity: it said so", there)
    (folder / "run.json").write_text(json.dumps(document))
    return CellEnd(code, "kvparity: it said so")


def swept(folder: Path, text: str) -> Path:
    """A sweep file beside a contract that is called tiny."""
    (folder / "tiny.yaml").write_text(
        "version: 1\nname: tiny\nsubject: {kind: decoder, preset: tiny}\n"
        "numerics: {execution: [float32, bfloat16]}\n"
        "workloads: [{name: long, prompt_tokens: [3], generate: 2}]\n"
        "checks: [{name: decode reduces like prefill, relation: invariance, paths: [decode]}]\n"
    )
    file = folder / "sweep.yaml"
    file.write_text(text)
    return file

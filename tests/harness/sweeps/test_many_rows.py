"""Histories and pages of many rows: what is read grows with them, not with their square."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import run_documents
from sweep_rows import BEGAN, row
from work_counted import reads

from kvparity.plan.results import CaseLine
from kvparity.report.document import CheckOfRun, RunReport
from kvparity.report.page.view import page_view
from kvparity.sweeps.history import ClaimRun, FlakyClaim, History, Turn, history
from kvparity.sweeps.page_view import store_view
from kvparity.sweeps.store_rows import CellHead, StoreRow, rows_of
from kvparity.sweeps.text import history_text

MANY = 60


def _cells(count: int) -> list[StoreRow]:
    """A contract each, at two releases, the second of which fails without a report."""
    bare = {"claim": None, "case_id": None}
    return [
        each
        for n in range(count)
        for each in (
            row(contract=f"c{n}", cell=f"a{n}"),
            row("5.24.0", "error", contract=f"c{n}", cell=f"b{n}", **bare),
        )
    ]


STORES: dict[str, Callable[[int], list[StoreRow]]] = {
    "cases of a claim": lambda count: [row(cell="x", case_id=f"c{n}") for n in range(count)],
    "claims of a cell": lambda count: [row(cell="x", claim=f"claim {n}") for n in range(count)],
    "contracts": _cells,
    "releases": lambda count: [row(f"5.{n}.0", "differs") for n in range(count)],
    "runs of a release": lambda count: [row(at=n) for n in range(count)],
    "devices": lambda count: [row(device=f"cuda:{n}", cell=f"{n}") for n in range(count)],
    "environments": lambda count: [row(environment=f"e{n}", cell=f"{n}") for n in range(count)],
}


def _shown(rows: list[StoreRow]) -> None:
    found = history(rows)
    history_text(found)
    store_view("some", rows, found)


@pytest.mark.parametrize("name", STORES)
def test_twice_the_rows_of_a_store_are_twice_the_work(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = StoreRow, ClaimRun, Turn, FlakyClaim, History
    few, many = (
        reads(monkeypatch, lambda rows=rows: _shown(rows), *kinds)  # type: ignore[misc]
        for rows in (STORES[name](MANY), STORES[name](2 * MANY))
    )
    assert MANY < few < many < 2.1 * few


def _report(paths: int, checks: int = 1) -> RunReport:
    """Cases of so many paths over ten workloads, and so many checks of one case."""
    grid = [
        run_documents.case(id=f"c{p:03}{w}", path=f"chunked({p + 1})", workload=f"w{w}")
        for p in range(paths)
        for w in range(10)
    ]
    whole = run_documents.report("holds", *grid)
    (check,) = whole["checks"]
    whole["checks"] = [
        check | {"name": f"check {n}", "cases": check["cases"] if n == 0 else check["cases"][:1]}
        for n in range(checks)
    ]
    return RunReport.model_validate(whole)


@pytest.mark.parametrize("of", ["paths", "checks"])
def test_twice_the_cases_of_a_run_are_twice_the_work(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = CellHead(cell="x", run=None, ended=BEGAN)
    few, many = (_report(n, 1) if of == "paths" else _report(1, 10 * n) for n in (8, 16))
    for made in (page_view, lambda folder, report: rows_of(head, report, folder)):
        first, second = (
            reads(
                monkeypatch,
                lambda made=made, report=report: made(tmp_path, report),  # type: ignore[misc]
                CaseLine, CheckOfRun,
            )
            for report in (few, many)
        )  # fmt: skip
        assert 80 < first < second < 2.1 * first

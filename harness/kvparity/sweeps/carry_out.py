"""Carry out a sweep: one cell after the other, in order of priority, until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from kvparity.core.exit_codes import ExitCode
from kvparity.plan.results import Outcome
from kvparity.report.finished import finished
from kvparity.report.verdict import worst
from kvparity.sweeps.judged import other_releases, other_than_asked
from kvparity.sweeps.planned import PlannedCell
from kvparity.sweeps.process import CellEnd, CellSettings, run_cell
from kvparity.sweeps.reading import ended_as
from kvparity.sweeps.store import SweepStore
from kvparity.sweeps.store_rows import CellHead, StoreRow, bare_row, now, rows_of

Told = Callable[[int, int, str], None]
"""(cells that ended, cells in all, what runs)"""
Runner = Callable[[PlannedCell, SweepStore, CellSettings, float | None], CellEnd]


@dataclass(frozen=True)
class SweptCell:
    """A cell that ended."""

    planned: PlannedCell
    verdict: Outcome
    reason: str
    before: bool
    """in an earlier run of the sweep"""


@dataclass(frozen=True)
class LeftCell:
    """A cell that did not end, and why."""

    planned: PlannedCell
    why: str


@dataclass(frozen=True)
class Swept:
    """A sweep: what ended, what is left, and why it stopped."""

    cells: tuple[SweptCell, ...]
    left: tuple[LeftCell, ...]

    @property
    def verdict(self) -> Outcome:
        """The worst of the cells; where some are left, nothing holds yet."""
        return worst([each.verdict for each in self.cells] + ["void"] * bool(self.left))


@dataclass(frozen=True)
class SweepWork:
    """What is carried out. ``budget_s``: seconds after which no cell begins, and what runs is
    interrupted; None: no limit. ``tell``: what is told on the way.
    """

    cells: tuple[PlannedCell, ...]
    store: SweepStore
    settings: CellSettings
    budget_s: float | None
    tell: Told

    def before(self) -> dict[str, SweptCell]:
        """The cells that ended in an earlier run, by id."""
        return {
            each.id: SweptCell(each, *ended_as(self.store.folder, each.id), before=True)
            for each in self.cells
            if self.store.ended(each.id)
        }


Carried = Callable[[SweepWork], Swept]
""":func:`carry_out`, or its like on other machines."""


def carry_out(work: SweepWork, runner: Runner | None = None) -> Swept:
    """Run every cell that has not ended; ``runner``: by default in a process of its own.

    Raises:
        RunFolderError: the store cannot be written.
        KeyboardInterrupt: from the terminal; what ended is in the store.
    """
    done = work.before()
    left: list[LeftCell] = []
    start = time.monotonic()
    for planned in (each for each in work.cells if each.id not in done):
        rest = None if work.budget_s is None else work.budget_s - (time.monotonic() - start)
        if rest is not None and rest <= 0:
            left.append(LeftCell(planned, "the budget is spent"))
            continue
        work.tell(len(done), len(work.cells), str(planned.cell))
        end = _run(planned, work.store, work.settings, rest, runner or run_cell)
        found = settled(planned, work.store, end)
        if isinstance(found, SweptCell):
            done[planned.id] = found
        else:
            left.append(found)
    return Swept(tuple(done[each.id] for each in work.cells if each.id in done), tuple(left))


def _run(
    planned: PlannedCell,
    store: SweepStore,
    settings: CellSettings,
    rest: float | None,
    runner: Runner,
) -> CellEnd:
    if (store.run(planned.id) / "run.json").is_file():  # killed before its rows were written
        return CellEnd(ExitCode.HOLDS, "")
    return runner(planned, store, settings, rest)


def settled(
    planned: PlannedCell, store: SweepStore, end: CellEnd, attempts: int = 1
) -> SweptCell | LeftCell:
    """Put what a process came to into the store; ``attempts``: how often it was begun.

    Raises:
        RunFolderError: the store cannot be written.
    """
    if (why := _unended(end)) is not None:
        return LeftCell(planned, why)
    head = _head(planned, store, attempts)
    if (found := end.installed) is not None and found.lacks is not None:
        why = f"not measured: its interpreter {found.lacks} ({found})"
        row = _bare(planned, head, "void", why, found.packages)
        store.note(planned.id, row.model_copy(update={"measured": False}))
        return LeftCell(planned, why)
    rows = tuple(_rows(planned, store, end, head))
    store.write(planned.id, rows)
    return SweptCell(planned, rows[0].cell_verdict, rows[0].cell_reason, before=False)


def _unended(end: CellEnd) -> str | None:
    """Why a process is no end of its cell, which is run again; or None."""
    if end.code is None:
        return "the budget was spent while it ran"
    if end.code == ExitCode.INTERRUPTED:
        return "it was interrupted"
    if end.code < 0:
        return f"its process was killed by signal {-end.code}"
    return end.said if "another kvparity runs in" in end.said else None


def _head(planned: PlannedCell, store: SweepStore, attempts: int) -> CellHead:
    return CellHead(
        cell=planned.id,
        sweep=planned.sweep,
        environment=planned.environment.name,
        attempts=attempts,
        run=str(store.run(planned.id).relative_to(store.folder)),
        ended=now(),
    )


def _rows(
    planned: PlannedCell, store: SweepStore, end: CellEnd, head: CellHead
) -> Iterator[StoreRow]:
    folder = store.run(planned.id)
    if not (folder / "run.json").is_file():
        packages = {} if end.installed is None else end.installed.packages
        if (other := other_releases(planned, packages)) is not None:
            yield _bare(planned, head, "void", other, packages)
            return
        why = f"it ended with exit code {end.code} and no report: {end.said}"
        yield _bare(planned, head, "error", why, packages)
        return
    report = finished(folder)
    other = other_than_asked(planned, report)
    if other is not None:
        ran = {**report.environment.versions, "python": report.environment.python}
        yield _bare(planned, head, "void", other, ran)
        return
    yield from rows_of(head, report, folder)


def _bare(
    planned: PlannedCell,
    head: CellHead,
    verdict: Outcome,
    reason: str,
    packages: Mapping[str, str | None],
) -> StoreRow:
    return bare_row(
        head,
        contract=planned.name,
        sha256=planned.given.sha256,
        sources=planned.sources,
        verdict=verdict,
        reason=reason,
        device=planned.cell.device,
        dtype=planned.cell.dtype,
        seed=planned.seed,
        packages=packages,
    )

"""What the page of a store shows, as values: a grid of contracts by releases and formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvparity.core.groups import grouped
from kvparity.plan.results import Outcome
from kvparity.report.verdict import worst
from kvparity.sweeps.history import History, Turn, version_key
from kvparity.sweeps.store_rows import StoreRow
from kvparity.sweeps.text import turn_words

Column = tuple[str, str]
"""(environment, format)"""
Begun = Mapping[tuple[str, str | None, int | None], Sequence[Turn]]
"""Turns with a first bad version, by contract, format and seed."""


@dataclass(frozen=True)
class ClaimShown:
    """A claim of a cell with its cases."""

    name: str
    verdict: Outcome
    reason: str
    cases: tuple[StoreRow, ...]


@dataclass(frozen=True)
class CellShown:
    """A place of the grid: its verifications, and whether a claim is first bad in it."""

    id: str
    title: str
    verdict: Outcome
    first_bad: tuple[str, ...]
    reason: str
    facts: str
    claims: tuple[ClaimShown, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class GridLine:
    """One contract on one device, with one seed."""

    name: str
    cells: tuple[CellShown | None, ...]


@dataclass(frozen=True)
class StoreView:
    """The whole page."""

    title: str
    verdict: Outcome
    counts: str
    columns: tuple[Column, ...]
    spans: tuple[tuple[str, int], ...]
    """(environment, how many formats)"""
    grid: tuple[GridLine, ...]
    turned: tuple[str, ...]
    steady: tuple[str, ...]
    flaky: tuple[str, ...]


def store_view(title: str, rows: Sequence[StoreRow], found: History) -> StoreView:
    """All that a store says; ``found``: the history of its rows."""
    columns = _columns(rows)
    begun = grouped(
        (turn for turn in found.turns if turn.first_bad is not None),
        lambda turn: (turn.contract, turn.dtype, turn.seed),
    )
    lines = grouped(rows, lambda row: (row.contract, row.device, row.seed))
    several = len({line[1:] for line in lines}) > 1
    grid = []
    for number, ((contract, device, seed), own) in enumerate(lines.items()):
        by_column = grouped(own, _column)
        cells = tuple(
            _cell(f"cell-{number}-{n}", column, by_column[column], begun)
            if column in by_column
            else None
            for n, column in enumerate(columns)
        )
        grid.append(GridLine(f"{contract}, {device}, seed {seed}" if several else contract, cells))
    shown = [cell for each in grid for cell in each.cells if cell is not None]
    verdicts = [cell.verdict for cell in shown]
    missing = len(grid) * len(columns) - len(shown)
    words = [f"{verdicts.count(each)} {each}" for each in dict.fromkeys(verdicts)]
    words += [f"{missing} not run"] * bool(missing)
    turned: list[str] = []
    steady: list[str] = []
    for turn in found.turns:
        said = f"{turn.contract}, {turn.claim}: {turn_words(turn)}"
        (steady if turn.words.startswith("good in every") else turned).append(said)
    return StoreView(
        title, worst(verdicts), ", ".join(words), columns, _spans(columns), tuple(grid),
        tuple(turned), tuple(steady),
        tuple(f"{each.contract}, {each.claim}: {each.words}" for each in found.flaky),
    )  # fmt: skip


def _columns(rows: Iterable[StoreRow]) -> tuple[Column, ...]:
    """Environments from the oldest releases to the newest, each with its formats."""
    releases: dict[str, StoreRow] = {}
    for row in rows:
        releases.setdefault(environment_of(row), row)
    order = sorted(releases, key=lambda name: _age(releases[name]))
    used = dict.fromkeys(map(_column, rows))
    formats = dict.fromkeys(each for _, each in used)
    return tuple((name, each) for name in order for each in formats if (name, each) in used)


def _column(row: StoreRow) -> Column:
    return environment_of(row), row.dtype or "own format"


def _age(row: StoreRow) -> tuple[object, ...]:
    packages = (row.transformers, row.torch, row.triton, row.kvparity, row.python)
    return tuple(version_key(each or "") for each in packages)


def environment_of(row: StoreRow) -> str:
    """What a sweep calls it; of a run that was added, its releases."""
    return row.environment or f"torch {row.torch}, transformers {row.transformers}"


def _spans(columns: Sequence[Column]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(name for name, _ in columns).items())


def _cell(name: str, column: Column, own: Sequence[StoreRow], begun: Begun) -> CellShown:
    verdict = worst([row.cell_verdict for row in own])
    first = next(row for row in own if row.cell_verdict == verdict)
    facts = (first.device_name or first.device, f"Python {first.python}" if first.python else "",
             *(f"{key} {value}" for key, value in _releases(first) if value),
             f"ended {first.ended:%Y-%m-%d %H:%M} UTC")  # fmt: skip
    return CellShown(
        name, f"{first.contract}, {', '.join(column)}", verdict,
        tuple(turn.claim or "" for turn in begun.get((first.contract, first.dtype, first.seed), ())
              if _begins(turn, first, own)),
        first.cell_reason, ", ".join(filter(None, facts)), _claims(own),
        tuple(dict.fromkeys(row.run for row in own if row.run)),
    )  # fmt: skip


def _releases(row: StoreRow) -> tuple[tuple[str, str | None], ...]:
    return (("torch", row.torch), ("triton", row.triton), ("transformers", row.transformers),
            ("kvparity", row.kvparity))  # fmt: skip


def _begins(turn: Turn, first: StoreRow, own: Sequence[StoreRow]) -> bool:
    """Whether a claim is first bad in the cell of these rows, and not in one beside it alone."""
    installed = {**dict(_releases(first)), "python": first.python}
    there = turn.device == (first.device_name or first.device)
    bad = any(_bad(row) for row in own if row.claim in (turn.claim, None))
    return there and bad and installed.get(turn.package) == turn.first_bad


def _bad(row: StoreRow) -> bool:
    return row.verdict != "holds" or row.claim_verdict == "void"


def _claims(rows: Sequence[StoreRow]) -> tuple[ClaimShown, ...]:
    shown = []
    for name, own in grouped(rows, lambda row: row.claim).items():
        if name is None:
            continue
        cases = tuple(row for row in own if row.case_id is not None)
        head = min(own, key=lambda row: ("error", "differs", "void", "holds").index(row.verdict))
        shown.append(ClaimShown(name, head.claim_verdict, head.claim_reason, cases))
    return tuple(shown)

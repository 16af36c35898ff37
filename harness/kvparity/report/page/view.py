"""What a page shows, as values: made of the report and the files beside it, before any markup."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvparity.births.picture import draw
from kvparity.core.groups import grouped
from kvparity.core.words import digits
from kvparity.gaps.pictures import pictures
from kvparity.plan.results import CaseLine, Divergence, Outcome
from kvparity.relations.registry import RELATIONS
from kvparity.report import advice, terminal
from kvparity.report.document import CheckOfRun, RunReport
from kvparity.report.finished import contract_text, located
from kvparity.report.page.bit_groups import BitGroup, bit_groups
from kvparity.report.page.kept_rows import ShownRow, kept_rows
from kvparity.report.page.layer_map import LayerMap, layer_map
from kvparity.report.verdict import worst
from kvparity.rollouts.tokens import Tokens

MOST_DRAWN = 4
"""Cases whose drift is drawn: the first that have one."""
_TITLES = {
    "position.svg": "The distance by position in the sequence.",
    "logprob.svg": "The distance by the rollout's logprob: rare tokens first.",
    "histogram.svg": "How many tokens are how far apart.",
    "map.svg": "The largest distance of each token, by sequence and position.",
}


@dataclass(frozen=True)
class Picture:
    """An SVG, and what it is of."""

    svg: str
    words: str


@dataclass(frozen=True)
class SideBits:
    """One side: its name, all digits, the pattern with what differs marked, the row's digest."""

    name: str
    value: str
    pattern: str
    bits: tuple[BitGroup, ...]
    digest: str


@dataclass(frozen=True)
class LocatedView:
    """``map``, ``picture``: None of a pair of kernels, and where no operation differs."""

    said: tuple[str, ...]
    map: LayerMap | None
    picture: Picture | None


@dataclass(frozen=True)
class CaseView:
    """A case with all that is known of it. ``of``: tokens of which ``rows`` are the first."""

    line: CaseLine
    place: str
    formats: str
    said: tuple[str, ...]
    sides: tuple[SideBits, ...]
    rows: tuple[ShownRow, ...]
    of: int
    pictures: tuple[Picture, ...]
    undrawn: bool
    located: LocatedView | None
    details: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class GridCell:
    """Cases of one path over one workload; ``case``: the worst of them."""

    words: str
    verdict: Outcome
    case: str


@dataclass(frozen=True)
class GridRow:
    """One path."""

    path: str
    cells: tuple[GridCell | None, ...]


@dataclass(frozen=True)
class CheckView:
    """A check: paths by workloads, what its relation adds, its cases."""

    check: CheckOfRun
    workloads: tuple[str, ...]
    grid: tuple[GridRow, ...]
    said: tuple[str, ...]
    cases: tuple[CaseView, ...]


@dataclass(frozen=True)
class PageView:
    """The whole page. ``contract``: its text as it was, None where that is gone."""

    report: RunReport
    ground: tuple[str, ...]
    checks: tuple[CheckView, ...]
    contract: str | None
    subject: str
    kernels: str
    tiles: str
    texts: str
    commands: tuple[str, ...]


def page_view(folder: Path, report: RunReport) -> PageView:
    """All that a run folder says.

    Raises:
        RunFolderError: a file in it is missing or not as it was written.
    """
    drawn = iter(range(MOST_DRAWN))
    checks = tuple(_check(folder, report, check, drawn) for check in report.checks)
    return PageView(
        report,
        tuple(line.strip() for line in terminal.ground(report)),
        checks,
        contract_text(folder, report),
        _json(report.subject),
        _json(report.kernels) if report.kernels else "",
        _json(report.tiles) if report.tiles.get("arch") else "",
        _json(report.texts.document()) if report.texts else "",
        (report.command, *dict.fromkeys(c for check in checks for c in _worst(check.cases))),
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _worst(cases: Sequence[CaseView]) -> tuple[str, ...]:
    return next((case.commands for case in cases if case.line.verdict == "differs"), ())


def _check(folder: Path, report: RunReport, check: CheckOfRun, drawn: Iterator[int]) -> CheckView:
    spread = (case for case in check.cases if case.workload is not None)
    places = grouped(spread, lambda case: (case.path, str(case.workload)))
    workloads = tuple(dict.fromkeys(name for _, name in places))
    cells = {place: _cell(cases) for place, cases in places.items()}
    return CheckView(
        check,
        workloads,
        tuple(
            GridRow(path, tuple(cells.get((path, name)) for name in workloads))
            for path in dict.fromkeys(path for path, _ in places)
        ),
        tuple(line.strip() for line in RELATIONS[check.relation].rows(check.cases)),
        tuple(_case(folder, report, case, drawn) for case in check.cases),
    )


def _cell(own: Sequence[CaseLine]) -> GridCell:
    verdict = worst([case.verdict for case in own])
    first = next(case for case in own if case.verdict == verdict)
    return GridCell(terminal.cell(own), verdict, first.id)


def _case(folder: Path, report: RunReport, case: CaseLine, drawn: Iterator[int]) -> CaseView:
    kept, account = kept_rows(folder, case), located(folder, case)
    here = shlex.quote(str(folder))
    drift = kept.tokens if case.verdict == "differs" else None
    draws = drift is not None and next(drawn, None) is not None
    told = case.verdict != "holds" and case.workload is not None
    lines = terminal.beside(case) if told else RELATIONS[case.relation].spots(case)
    return CaseView(
        line=case,
        place=RELATIONS[case.relation].place(case),
        formats=terminal.formats(case),
        said=tuple(line.strip() for line in lines),
        sides=() if case.first_divergence is None else _sides(case, case.first_divergence),
        rows=kept.rows,
        of=kept.of,
        pictures=_drift(drift) if drift is not None and draws else (),
        undrawn=drift is not None and not draws,
        located=None
        if account is None
        else LocatedView(
            account.said or tuple(account.words.splitlines()),
            layer_map(account.map) if account.map else None,
            Picture(draw(account.map), "Operations by position.") if account.map else None,
        ),
        details="" if case.details is None else _json(case.details.document()),
        commands=tuple(filter(None, _commands(here, case, report))),
    )


def _drift(tokens: Tokens) -> tuple[Picture, ...]:
    return tuple(Picture(svg, _TITLES[name]) for name, svg in pictures(tokens))


def _commands(folder: str, case: CaseLine, report: RunReport) -> Iterator[str | None]:
    yield advice.replay_command(folder, case)
    if case.verdict == "differs":
        yield advice.locate_command(folder, case, report)
        yield advice.shrink_command(folder, case, report)


def _sides(case: CaseLine, found: Divergence) -> tuple[SideBits, ...]:
    patterns = found.reference_bits, found.candidate_bits
    values, digests = (
        (found.reference, found.candidate),
        (found.reference_digest, found.candidate_digest),
    )
    return tuple(
        SideBits(name, digits(value), own, bit_groups(own, other), digest)
        for name, value, own, other, digest in zip(
            case.sides, values, patterns, patterns[::-1], digests, strict=True
        )
    )

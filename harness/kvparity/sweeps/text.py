"""Sweeps and histories in words, and as JSON documents."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime

from kvparity.core.groups import grouped
from kvparity.core.values import Json
from kvparity.sweeps.carry_out import Swept
from kvparity.sweeps.history import ClaimRun, FlakyClaim, History, Turn
from kvparity.sweeps.planned import PlannedCell
from kvparity.sweeps.reading import SqlAnswer
from kvparity.sweeps.store import SweepStore

_SCHEMA = 1


def listed(cells: Sequence[PlannedCell], store: SweepStore) -> tuple[Json, str]:
    """The cells in their order, as a document and as text."""
    rows: list[Json] = [{**_cell(each), "ended": store.ended(each.id)} for each in cells]
    lines = [f"{each.id}  {'ended' if store.ended(each.id) else 'left ':5}  {each.cell}"
             for each in cells]  # fmt: skip
    return {"schema_version": _SCHEMA, "cells": [*rows]}, "\n".join(lines)


def document(found: Swept, store: SweepStore) -> Json:
    """What ``kvparity sweep --json`` prints."""
    ended: list[Json] = [
        {**_cell(each.planned), "verdict": each.verdict, "reason": each.reason}
        | {"before": each.before}
        for each in found.cells
    ]
    left: list[Json] = [{**_cell(each.planned), "why": each.why} for each in found.left]
    return {
        "schema_version": _SCHEMA,
        "verdict": found.verdict,
        "store": str(store.folder),
        "cells": [*ended],
        "left": [*left],
    }


def render(found: Swept, store: SweepStore) -> str:
    """The same for a terminal."""
    every = [*(each.planned for each in found.cells), *(each.planned for each in found.left)]
    lines = [f"{every[0].sweep}: {found.verdict.upper()}"]
    for each in found.cells:
        before = ", in an earlier run" if each.before else ""
        lines.append(f"  {each.verdict:7}  {each.planned.cell}: {each.reason}{before}")
    lines += [f"  left     {each.planned.cell}: {each.why}" for each in found.left]
    if found.left:
        count = len(found.left)
        lines.append(f"{count} of {count + len(found.cells)} cells are left; --resume runs them")
    return "\n".join([*lines, f"store: {store.folder}"])


def _cell(planned: PlannedCell) -> Json:
    cell = planned.cell
    return {"id": planned.id, "contract": planned.name, "device": cell.device,
            "dtype": cell.dtype, "version": cell.version, "seed": planned.seed}  # fmt: skip


def history_document(found: History) -> Json:
    """What ``kvparity history --json`` prints."""
    return plain({"schema_version": _SCHEMA, **asdict(found)})


def plain(value: object) -> Json:
    """As JSON has it: tuples as lists, times in words."""
    found: Json = json.loads(json.dumps(value, default=_words))
    return found


def _words(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def history_text(found: History) -> str:
    """Every claim: its turns, and its runs from the oldest to the newest."""
    return "\n".join(_history_lines(found)) or "no such claim"


def _history_lines(found: History) -> Iterator[str]:
    same = _of_all([run for run in found.runs if run.measured])
    if same:
        yield f"all with {_packages(same)}"
    turns, flaky = grouped(found.turns, _of), grouped(found.flaky, _of)
    for (contract, claim), runs in grouped(found.runs, _of).items():
        of = contract, claim
        yield f"{contract}: {claim or 'no report'}"
        yield from (f"  {turn_words(turn)}" for turn in turns.get(of, ()))
        for each in flaky.get(of, ()):
            yield f"  flaky: {_at(each.dtype, each.seed)}: {each.words}"
        states = {run.sources for run in runs}
        if len(states) > 1:
            yield f"  its source files had {len(states)} states, which are compared apart"
        for run in runs:
            yield f"    {run.verdict:7}  {run_words(run, same, sources=len(states) > 1)}"


def _of_all(runs: Sequence[ClaimRun]) -> set[tuple[str, str | None]]:
    """The releases that every run had."""
    return set.intersection(*(set(run.packages) for run in runs)) if runs else set()


def _packages(packages: Iterable[tuple[str, str | None]]) -> str:
    return ", ".join(f"{name} {release}" for name, release in sorted(packages) if release)


def turn_words(turn: Turn) -> str:
    """Where a claim turned, in one line."""
    return f"{_at(turn.dtype, turn.seed)}, {turn.device}: {turn.words}"


def run_words(
    run: ClaimRun, same: Collection[tuple[str, str | None]] = (), *, sources: bool = False
) -> str:
    """One run of a claim in one line, without the releases that all runs have; with ``sources``."""
    own = _packages(item for item in run.packages if item not in same)
    when = run.ended.strftime("%Y-%m-%d %H:%M")
    files = f"sources {run.sources or 'not known'}" if sources else ""
    said = (when, _at(run.dtype, run.seed), run.device, own, files)
    return f"{'  '.join(filter(None, said))}: {run.reason}"


def _of(found: ClaimRun | Turn | FlakyClaim) -> tuple[str, str | None]:
    return found.contract, found.claim


def _at(dtype: str | None, seed: int | None) -> str:
    return ", ".join([dtype or "no format", *([] if seed is None else [f"seed {seed}"])])


def sql_text(answer: SqlAnswer) -> str:
    """A table of what a query gave."""
    rows = [tuple("–" if each is None else str(each) for each in row) for row in answer.rows]
    table = [answer.names, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)

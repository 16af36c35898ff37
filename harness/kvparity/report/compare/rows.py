"""Rows that two runs kept of the same paths: whether each computed the bits of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kvparity.report.lines import Rows, UnitLine
from kvparity.report.run_dir import Evidence


@dataclass(frozen=True)
class UnitsRan:
    """By unit: the tokens of its sequences, and the kept rows of each path."""

    tokens: Mapping[str, list[list[int]]]
    rows: Mapping[str, Mapping[str, Rows]]


def ran(folder: Path) -> UnitsRan:
    """What the units of a run kept.

    Raises:
        RunFolderError: a line is not as it was written.
    """
    units = [line for _, line in Evidence(folder).read(UnitLine)]
    return UnitsRan({u.unit: u.tokens for u in units}, {u.unit: u.rows for u in units})


def bits_apart(before: UnitsRan, after: UnitsRan) -> Iterator[tuple[str, str, str]]:
    """(what, before, after) of every path of which both kept a row, where its bits are others.

    Of a unit that drew other tokens nothing else is said: then rows are of other texts.
    """
    for unit, tokens in before.tokens.items():
        if unit not in after.tokens:
            continue
        if tokens != after.tokens[unit]:
            apart = sum(a != b for a, b in zip(tokens, after.tokens[unit], strict=False))
            apart += abs(len(tokens) - len(after.tokens[unit]))
            yield f"{unit}: tokens", "", f"{apart} of {len(tokens)} sequences are others"
            continue
        for path, rows in before.rows[unit].items():
            there = {row[:2]: row for row in after.rows[unit].get(path, ())}
            for row in rows:
                other = there.get(row[:2])
                if other is not None and row[2:] != other[2:]:
                    place = f"sequence {row[0]}, position {row[1]}"
                    yield f"{unit}: {path}, {place}", _row(row[2], row[3]), _row(*other[2:])
                    break


def _row(digest: str, bits: tuple[str, ...]) -> str:
    return f"{digest}: {' '.join(bits[:4])}{' …' if len(bits) > 4 else ''}"

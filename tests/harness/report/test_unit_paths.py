"""The lines of a unit's paths: what is told of them, and how often."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from records import DECODE, record

from kvparity.record.execute import Record
from kvparity.report.lines import Launches, PathLine, Row, Sequence, UnitLine
from kvparity.report.unit_paths import UnitPaths
from kvparity_contracts.paths import PathName

PREFILL_PATH, DECODE_PATH = PathName("prefill"), PathName("decode")
LAUNCHES = Launches(counts={"k": 1}, kernels={})


def kept(path: PathName) -> tuple[Row, ...]:
    """Rows that say of which path they are."""
    return ((0, len(str(path)), "0x" + "0" * 16, ()),)


def paths(*ran: PathLine) -> tuple[UnitPaths, list[PathLine]]:
    told: list[PathLine] = []
    return UnitPaths("u", ran, told.append, lambda path, _: kept(path), lambda _: ""), told


def ended(**counts: int) -> Record:
    return replace(record(DECODE, launched={"k": 1}), observed=Counter(counts))


def line(path: PathName, *, probed: bool = False, **observed: int) -> PathLine:
    return PathLine(
        unit="u", path=str(path), probed=probed, observed=observed, launches=LAUNCHES, seconds=0.5,
        **({} if probed else {"rows": kept(path)}),
    )  # fmt: skip


def test_a_path_is_told_once_for_itself_and_once_where_it_was_probed() -> None:
    found, told = paths()
    one, other = ended(a=1), ended(a=2, b=3)
    found.look({PREFILL_PATH: one}, {}, {"prefill": 0.5})
    found.look({PREFILL_PATH: ended(a=9)}, {PREFILL_PATH: other}, {"prefill": 0.5})
    found.look({PREFILL_PATH: one}, {PREFILL_PATH: other}, {})
    assert [each.document() for each in told] == [
        line(PREFILL_PATH, a=1).document(), line(PREFILL_PATH, probed=True, a=2, b=3).document(),
    ]  # fmt: skip
    assert found.observed() == {"a": 3, "b": 3}


@pytest.mark.parametrize("first", [True, False])
def test_where_a_path_also_ran_without_a_probe_that_counts(first: bool) -> None:
    found, told = paths()
    plain, probed = {DECODE_PATH: ended(a=1)}, {DECODE_PATH: ended(a=2)}
    found.look(plain if first else {}, {} if first else probed, {"decode": 0.5})
    found.look(plain, probed, {"decode": 0.5})
    assert len(told) == 2
    sequence = Sequence(id="w/0", prompt=1, ids=(0, 1))
    assert found.line((sequence,), {"kind": "toy"}) == UnitLine(
        unit=found.unit, sequences=(sequence,), subject={"kind": "toy"},
        observed={"decode": {"a": 1}}, launches={"decode": LAUNCHES},
        seconds={"decode": 0.5}, rows={"decode": kept(DECODE_PATH)},
    )  # fmt: skip


def test_of_a_path_that_was_only_probed_there_are_no_rows_and_no_seconds() -> None:
    known = line(PREFILL_PATH, a=4).model_copy(update={"seconds": None, "rows": ()})
    found, told = paths(known)
    found.look({PREFILL_PATH: ended(a=1)}, {DECODE_PATH: ended(a=2)}, {})
    assert [each.path for each in told] == ["decode"]
    assert found.observed() == {"a": 6}
    unit = found.line((Sequence(id="w/0", prompt=1, ids=(0, 1)),), {})
    assert (unit.seconds, unit.rows) == ({}, {"prefill": ()})

"""What a replay says of a case, rule by rule: nothing is computed here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from records import DECODE, VALUES, changed, record

from kvparity.plan.results import CaseLine
from kvparity.record.path_run import Setting
from kvparity.relations.asked import RelationAnswer
from kvparity.relations.bits_and_limits import Comparison, invariance
from kvparity.run import replay as replaying
from kvparity.run.replay import Replay, _again, _lasting, _place, _row, _timeless
from kvparity.run.unit import Runner
from kvparity_contracts.paths import PathName

HOLDS, DIFFERS, VOID, ERROR = "holds", "differs", "void", "error"
PARTED = "path decode: other bits in a fresh process"

# now, in the run, (same, after the others, as in the run), what fresh processes found:
# the verdict, and whether what the subject keeps decides
RULES: dict[str, tuple[str, str, tuple[bool, str | None, bool | None], str | None, Any]] = {
    "it holds again": (HOLDS, HOLDS, (True, None, None), None, (HOLDS, False)),
    "it differs again": (DIFFERS, DIFFERS, (True, None, None), None, (DIFFERS, False)),
    "it is void again": (VOID, VOID, (True, None, None), None, (VOID, False)),
    "it holds beside the other side only": (
        HOLDS, HOLDS, (True, None, None), PARTED, (DIFFERS, True),
    ),
    "it differs, and fresh processes parted too": (
        DIFFERS, DIFFERS, (True, None, None), PARTED, (DIFFERS, False),
    ),
    "it is void, and fresh processes parted too": (
        VOID, VOID, (True, None, None), PARTED, (VOID, False),
    ),
    "alone it holds, after the others it differs": (
        HOLDS, DIFFERS, (False, DIFFERS, True), None, (DIFFERS, True),
    ),
    "the same, with other bits than in the run": (
        HOLDS, DIFFERS, (False, DIFFERS, False), None, (DIFFERS, True),
    ),
    "it holds now, however it is run": (HOLDS, DIFFERS, (False, HOLDS, False), None, (VOID, False)),
    "it held now, and was void": (HOLDS, VOID, (False, HOLDS, False), None, (VOID, False)),
    "it is void after the others, as it was": (
        HOLDS, VOID, (False, VOID, True), None, (VOID, True),
    ),
    "an error after the others, as it was": (
        HOLDS, ERROR, (False, ERROR, False), None, (VOID, True),
    ),
    "it holds otherwise, and after the others as in the run": (
        HOLDS, HOLDS, (False, HOLDS, True), None, (HOLDS, True),
    ),
    "it holds otherwise each time": (HOLDS, HOLDS, (False, HOLDS, False), None, (HOLDS, False)),
    "it differs now, and after the others as it held": (
        DIFFERS, HOLDS, (False, HOLDS, True), None, (DIFFERS, True),
    ),
    "it differs otherwise, and after the others as in the run": (
        DIFFERS, DIFFERS, (False, DIFFERS, True), None, (DIFFERS, True),
    ),
    "it differs otherwise each time": (
        DIFFERS, DIFFERS, (False, DIFFERS, False), None, (DIFFERS, False),
    ),
    "it differs now however it is run": (
        DIFFERS, HOLDS, (False, DIFFERS, False), None, (DIFFERS, False),
    ),
    "the others make it differ in a run where it was void": (
        HOLDS, VOID, (False, DIFFERS, False), None, (VOID, False),
    ),
    "it is an error now": (ERROR, HOLDS, (False, ERROR, False), None, (ERROR, False)),
    "it holds now, and nothing else was tried": (
        HOLDS, DIFFERS, (False, None, None), None, (VOID, False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_the_verdict_of_a_replay_and_what_decides_it(name: str) -> None:
    now, then, (same, after, alike), fresh, wanted = RULES[name]
    entry = CaseLine.model_construct(verdict=now)
    found = Replay(entry, {"verdict": then}, same, None, 2, after, alike, fresh=fresh)
    assert (found.verdict, found.keeps_state) == wanted
    assert not found.moves  # nobody said so


def test_a_case_of_an_unknown_verdict_is_void_where_it_holds_now() -> None:
    found = Replay(CaseLine.model_construct(verdict=HOLDS), {}, False, None, 2, HOLDS, False)
    assert found.verdict == VOID


LINE = {
    "id": "c000", "relation": "accuracy", "verdict": "holds", "reason": "words",
    "rollout": "decode", "trainer": "float64", "max_abs_dlogp": 0.5, "approx_kl0": 0.1,
    "accuracy": {}, "invariance": {}, "evidence": "a file", "tokens": 5,
}  # fmt: skip
ALWAYS = {"id", "relation", "verdict", "max_abs_dlogp", "tokens"}


@pytest.mark.parametrize(
    ("schema", "relation", "more"),
    [
        (2, "accuracy", {"reason", "rollout", "trainer", "approx_kl0", "accuracy"}),
        (2, "invariance", {"reason", "rollout", "trainer", "approx_kl0"}),
        (1, "accuracy", set()),
        (1, "invariance", {"reason"}),
    ],
)
def test_what_a_second_look_must_find_again(schema: int, relation: str, more: set[str]) -> None:
    others = {"accuracy", "invariance"} - {relation}
    line = {key: it for key, it in LINE.items() if key not in others} | {"relation": relation}
    assert set(_lasting(line, schema)) == ALWAYS | more


def test_seconds_are_no_difference_wherever_they_stand() -> None:
    line = {"a": [{"seconds": 1.0, "b": [2, {"seconds": 3}]}], "seconds": 4, "c": "seconds"}
    assert _timeless(line) == {"a": [{"b": [2, {}]}], "c": "seconds"}


BITS = changed(3, 0, -9.0)
PLACES: dict[str, tuple[dict[str, Any], int | None, tuple[int, int]]] = {
    "a row": ({"digests": (1, 2, 7, -4, 5)}, 0, (0, 3)),
    "a value": ({"values": BITS}, 0, (1, 1)),
    "a value of another column": ({"values": BITS}, 1, (0, 1)),
    "a value of any column": ({"values": BITS}, None, (1, 1)),
    "a value before a row": ({"values": changed(1, 1, 0.0), "digests": (1, 2, 3, 7, 5)}, 1, (0, 2)),
    "a row before a value": ({"values": BITS, "digests": (1, 7, 3, -4, 5)}, 0, (0, 2)),
    "nothing": ({}, None, (0, 1)),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_row_to_look_at_is_the_first_that_differs(name: str) -> None:
    change, column, place = PLACES[name]
    assert _place(record(), record(DECODE, **change), column) == place


class Kept:
    """Runs a path again, and keeps one row of it."""

    def __init__(self, candidate: object = None) -> None:
        self.asked: list[tuple[str, frozenset[tuple[int, int]]]] = []
        self.records = {Asked.path: candidate}

    def record(self, path: PathName, *, keep: frozenset[tuple[int, int]]) -> Any:
        self.asked.append((str(path), keep))
        rows = torch.zeros(9), torch.ones(9)
        return replace(record(), kept={(1, 1): rows[str(path) == "decode"]})


class Asked:
    """As much of a case as is looked at."""

    path, reference, column = PathName("decode"), PathName("prefill"), 0


PARTING = invariance(record(), record(DECODE, values=BITS), column=0)
NO_RECORD = object()


@pytest.mark.parametrize(
    ("found", "sides", "shown"),
    [
        (PARTING, (record(), record(DECODE, values=BITS)), True),
        (PARTING, (NO_RECORD, record(DECODE, values=BITS)), False),
        (PARTING, (record(), NO_RECORD), False),
        (Comparison("holds", ""), (record(), record(DECODE)), False),
        (PARTING, (record(), record(DECODE, values=BITS), record(DECODE)), False),
    ],
    ids=[
        "two records",
        "a reference of another kind",
        "a path of another kind",
        "nothing differs",
        "a record of ranks",
    ],
)
def test_whole_rows_are_shown_of_two_records_that_differ(
    found: Comparison, sides: Any, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "run_case", lambda *_: RelationAnswer(found, sides[1], sides[0]))
    monkeypatch.setattr(replaying, "column_name", lambda subject, column: f"token {column}")
    runner, setting = Kept(sides[-1]), type("S", (), {"subject": None})
    result, row = _again(cast(Setting, setting), cast(Runner, runner), cast(Any, Asked))
    assert result is found
    assert (row is not None) == shown
    if row is not None:
        place = frozenset([(1, 1)])
        assert runner.asked == [("prefill", place), ("decode", place)]
        assert (row["columns"], row["differing"], len(row["farthest"])) == (9, 9, 5)
        shown_first = row["farthest"][0]
        assert (shown_first["reference"], shown_first["candidate"]) == (0.0, 1.0)
        assert shown_first["name"] == f"token {shown_first['column']}"


def test_without_a_reference_no_row_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        replaying, "run_case", lambda *_: RelationAnswer(PARTING, record(), record())
    )
    case = type("C", (Asked,), {"reference": None})
    assert _again(cast(Any, None), cast(Any, None), cast(Any, case)) == (PARTING, None)


def test_no_column_is_shown_that_does_not_differ() -> None:
    a = torch.tensor([1.0, -0.0, 3.0, 4.0])
    b = torch.tensor([1.0, 0.0, 3.0, 4.5])
    subject = cast(Any, type("S", (), {"vocab": 4}))
    found = _row(subject, a, b)
    assert found["differing"] == 2
    assert [(each["column"], each["distance"], each["ulps"]) for each in found["farthest"]] == [
        (3, 0.5, 2**20), (1, 0.0, 1),
    ]  # fmt: skip
    assert len(_row(subject, VALUES[:, 0], VALUES[:, 1])["farthest"]) == 5

"""A claim over versions: first bad versions as versions are sorted, and the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep_rows import row

from kvparity.cli.main import main
from kvparity.sweeps.history import history
from kvparity.sweeps.store import SweepStore
from kvparity.sweeps.store_rows import StoreRow
from kvparity.sweeps.text import history_text

Said = tuple[str, str]
TURNS: dict[str, tuple[tuple[Said, ...], str | None, str]] = {
    "turned bad": (
        (("5.24.0", "differs"), ("5.23.0", "holds")), "5.24.0",
        "first bad version: transformers 5.24.0 (differs; 5.23.0 holds)",
    ),
    "sorted as versions": (
        (("5.10.0", "differs"), ("5.9.0", "holds"), ("5.9.0rc1", "holds")), "5.10.0",
        "first bad version: transformers 5.10.0 (differs; 5.9.0 holds)",
    ),
    "bad in more than one": (
        (("4.57.6", "holds"), ("5.23.0", "void"), ("5.24.0", "error")), "5.23.0",
        "first bad version: transformers 5.23.0 (void; 4.57.6 holds)",
    ),
    "not monotonic": (
        (("5.22.0", "holds"), ("5.23.0", "differs"), ("5.24.0", "holds")), None,
        "no first bad version: it is not monotonic in transformers (5.22.0 holds, 5.23.0 differs, "
        "5.24.0 holds)",
    ),
    "bad, good, bad": (
        (("5.22.0", "differs"), ("5.23.0", "holds"), ("5.24.0", "differs")), None,
        "no first bad version: it is not monotonic in transformers (5.22.0 differs, 5.23.0 holds, "
        "5.24.0 differs)",
    ),
    "mended": (
        (("5.23.0", "differs"), ("5.24.0", "holds")), None,
        "good since transformers 5.24.0 (5.23.0 differs, 5.24.0 holds)",
    ),
    "good in all": (
        (("5.23.0", "holds"), ("5.24.0", "holds")), None,
        "good in every version of transformers (5.23.0 holds, 5.24.0 holds)",
    ),
    "bad in all": (
        (("5.23.0", "differs"), ("5.24.0", "differs")), None,
        "bad in every version of transformers that was run (5.23.0 differs, 5.24.0 differs)",
    ),
    "torn": (
        (("5.23.0", "holds"), ("5.24.0", "differs"), ("5.24.0", "holds")), None,
        "no first bad version: transformers 5.24.0 gave different verdicts (5.23.0 holds, 5.24.0 "
        "differs)",
    ),
    "no version at all": (
        (("5.24.0", "differs"), ("main", "holds")), None,
        "no first bad version: transformers main is not a sortable version (main holds, 5.24.0 "
        "differs)",
    ),
    "two builds of a release": (
        (("5.24.0+cpu", "holds"), ("5.24.0+cu130", "differs")), None,
        "no first bad version: builds of one release of transformers differ (5.24.0+cpu holds, "
        "5.24.0+cu130 differs)",
    ),
    "two spellings of a release": (
        (("5.24", "holds"), ("5.24.0", "differs")), None,
        "no first bad version: builds of one release of transformers differ (5.24 holds, 5.24.0 "
        "differs)",
    ),
    "two builds that agree": (
        (("5.23.0", "holds"), ("5.24.0+cpu", "differs"), ("5.24.0+cu130", "differs")), "5.24.0+cpu",
        "first bad version: transformers 5.24.0+cpu (differs; 5.23.0 holds)",
    ),
    "good in all, and one is no version": (
        (("5.24.0", "holds"), ("main", "holds")), None,
        "good in every version of transformers (main holds, 5.24.0 holds)",
    ),
    "bad in all, and one is no version": (
        (("5.24.0", "differs"), ("main", "differs")), None,
        "bad in every version of transformers that was run (main differs, 5.24.0 differs)",
    ),
    "builds of two releases": (
        (("5.23.0+cu128", "holds"), ("5.24.0+cu130", "differs")), "5.24.0+cu130",
        "first bad version: transformers 5.24.0+cu130 (differs; 5.23.0+cu128 holds)",
    ),
    "a candidate": (
        (("5.24.0rc1", "differs"), ("5.23.0", "holds"), ("5.24.0", "differs")), "5.24.0rc1",
        "first bad version: transformers 5.24.0rc1 (differs; 5.23.0 holds)",
    ),
}  # fmt: skip


def rows(*said: Said) -> list[StoreRow]:
    return [row(release, verdict, at=n) for n, (release, verdict) in enumerate(said)]


@pytest.mark.parametrize("name", TURNS)
def test_where_a_claim_turned(name: str) -> None:
    said, first, words = TURNS[name]
    (turn,) = history(rows(*said)).turns
    assert (turn.package, turn.first_bad, turn.words) == ("transformers", first, words)


GOOD, BAD = {"transformers": "5.23.0"}, {"transformers": "5.24.0", "verdict": "differs"}
APART: dict[str, dict[str, Any]] = {
    "another format": {"dtype": "bfloat16"},
    "another seed": {"seed": 1},
    "another device": {"device_name": "Another CPU"},
    "another claim": {"claim": "close"},
    "another contract": {"contract": "other"},
    "an edited contract": {"contract_sha256": "cd"},
    "other sources": {"sources": "cd"},
    "another torch": {"packages": {"torch": "2.14.0"}},
    "another python": {"python": "3.13.0"},
}


@pytest.mark.parametrize("name", APART)
def test_versions_are_compared_where_all_else_is_equal(name: str) -> None:
    assert history([row(**GOOD), row(**BAD)]).turns
    assert history([row(**GOOD), row(**BAD, **APART[name])]).turns == ()


def test_a_run_that_failed_counts_for_every_claim_and_one_of_something_else_for_none() -> None:
    good = [row(), row(claim="close", case_id="c001")]
    bare: dict[str, Any] = {"claim": None, "case_id": None, "device_name": None}
    known = {"packages": json.dumps({"transformers": "5.24.0"}), "python": None}
    failed = row("5.24.0", "error", **bare).model_copy(update=known)
    assert [turn.first_bad for turn in history([*good, failed]).turns] == ["5.24.0", "5.24.0"]
    other = row("5.24.0", "void", **bare)
    assert history([*good, other]).turns == ()
    for other in ({"device": "cuda"}, {"contract_sha256": "cd"}, {"dtype": "bfloat16"}):
        elsewhere = row("5.24.0", "error", **bare | other)
        assert history([*good, elsewhere]).turns == ()
    alone = row("5.24.0", "error", claim="close", case_id="c001")
    assert [turn.claim for turn in history([*good, alone]).turns] == ["close"]


def test_what_is_asked_of_is_one_contract_or_claim_and_the_runs_without_a_report() -> None:
    bare = row(verdict="error", claim=None, case_id=None, device_name=None)
    others = [row(claim="close", case_id="c001"), row(contract="other")]
    found = history([row(), *others, bare], "paged", "same bits")
    assert [(run.claim, run.device) for run in found.runs] == [
        ("same bits", "Some CPU"), (None, "cpu"),
    ]  # fmt: skip
    assert len(history([row(), *others, bare]).runs) == 4


def test_what_measured_nothing_is_no_bad_version_and_is_told() -> None:
    said = rows(("5.22.0", "holds"), ("5.25.0", "differs"))
    bare: dict[str, Any] = {"claim": None, "case_id": None, "device_name": None}
    noted = row("5.24.0", "void", **bare, measured=False, torch=None)
    noted = noted.model_copy(update={"claim_reason": "not measured: so"})
    earlier = row("5.23.0", "error", **bare, torch=None)
    (turn,) = history([*said, noted, earlier]).turns
    assert (turn.first_bad, turn.words) == (
        "5.25.0",
        "first bad version: transformers 5.25.0 (differs; 5.22.0 holds); not measured: "
        "transformers 5.23.0, 5.24.0",
    )
    text = history_text(history([*said, noted]))
    assert "all with kvparity 0.1.0, python 3.11.7, torch 2.13.0+cpu" in text
    assert "transformers 5.24.0: not measured: so" in text
    assert history([said[0], noted, earlier]).turns == (), "one release is no history"


def test_runs_of_other_sources_are_told_apart() -> None:
    found = history([row(**GOOD, sources="ab"), row(**BAD, sources="cd"), row(**BAD, at=1)])
    assert found.turns == found.flaky == ()
    said = history_text(found).splitlines()
    assert said[2] == "  its source files had 3 states, which are compared apart"
    assert [line.split("sources ")[1][:9] for line in said[3:]] == [
        "ab: why",
        "cd: why",
        "not known",
    ]


def test_a_claim_is_its_checks_verdict_and_of_several_formats_each_its_cases() -> None:
    held = {"reason": "bits are equal"}
    (run,) = history([row(claim_verdict="void", claim_reason="no control", **held)]).runs
    assert (run.verdict, run.reason) == ("void", "no control")
    both = [
        row(cell="x", **held, claim_verdict="differs"),
        row(cell="x", verdict="differs", dtype="bfloat16"),
    ]
    assert [each.verdict for each in history(both).runs] == ["holds", "differs"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    found = SweepStore(tmp_path / "store")
    with found.alone():
        for each in rows(("5.23.0", "holds"), ("5.24.0", "differs")):
            found.write(each.cell, [each])
    return found.folder


def test_the_command(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", str(store), "paged", "--claim", "same bits"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("all with kvparity 0.1.0, python 3.11.7, torch 2.13.0+cpu")
    assert said[1:3] == [
        "paged: same bits",
        "  float32, seed 0, Some CPU: first bad version: transformers 5.24.0 (differs; 5.23.0 "
        "holds)",
    ]
    assert said[3].split() == [
        "holds", "2026-11-30", "12:00", "float32,", "seed", "0", "Some", "CPU", "transformers",
        "5.23.0:", "why",
    ]  # fmt: skip
    assert main(["history", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [turn["first_bad"] for turn in found["turns"]] == ["5.24.0"]
    query = "SELECT transformers, max(ended) AS last FROM cases WHERE verdict <> 'holds' GROUP BY 1"
    assert main(["history", str(store), "--sql", query]) == 0
    assert capsys.readouterr().out.split() == [
        "transformers", "last", "5.24.0", "2026-11-30", "12:01:00+00:00",
    ]  # fmt: skip
    assert main(["history", str(store), "--sql", query, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["rows"]
    assert answer == {"transformers": "5.24.0", "last": "2026-11-30T12:01:00+00:00"}


MISUSED = {
    "no store": (["history", "nowhere"], "nowhere holds no store"),
    "an empty store": (["history", "empty"], "holds no verification that ended"),
    "no such contract": (["history", "store", "x"], "holds no contract 'x'; it holds paged"),
    "no such claim": (["history", "store", "--claim", "x"], "no claim 'x'; it holds same bits"),
    "bad SQL": (["history", "store", "--sql", "SELEC"], "--sql: Parser Error"),
    "SQL of another file": (
        ["history", "store", "--sql", "SELECT * FROM 'other.csv'"],
        "--sql: Permission Error",
    ),
    "SQL that writes": (
        ["history", "store", "--sql", "COPY cases TO 'x.csv'"],
        "--sql: Permission Error",
    ),
    "SQL that writes into the store": (
        ["history", "store", "--sql", "COPY cases TO 'store/cells/y.parquet'"],
        "--sql: ",
    ),
    "SQL that unlocks": (
        ["history", "store", "--sql", "SET enable_external_access = true"],
        "--sql: ",
    ),
    "no such column": (["history", "store", "--sql", "SELECT x FROM cases"], "--sql: Binder Error"),
    "two questions": (["history", "store", "paged", "--sql", "x"], "found --sql beside a contract"),
    "somebody's file": (["history", "damaged"], "damaged cannot be read: "),
    "no run": (["history", "store", "--add", "store"], "holds no run (no run.json in it)"),
}


@pytest.mark.parametrize("name", MISUSED)
def test_a_mistake_is_one_sentence(
    name: str, store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line, words = MISUSED[name]
    monkeypatch.chdir(store.parent)
    for folder in ("empty", "damaged"):
        Path(folder, "cells").mkdir(parents=True)
    Path("damaged/cells/x.parquet").write_text("x")
    Path("other.csv").write_text("a\n1\n")
    before = sorted(Path().rglob("*"))
    assert main(line) == 2
    assert sorted(each for each in Path().rglob("*") if each.name != "lock") == [
        each for each in before if each.name != "lock"
    ], "nothing is written"
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("package", ["duckdb", "pyarrow", "packaging"])
def test_what_is_missing_is_named(
    package: str, store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["history", str(store)]) == 2
    said = capsys.readouterr().err
    assert package in said
    assert 'pip install "kvparity[history]"' in said

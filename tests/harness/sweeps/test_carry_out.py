"""What a sweep runs, what it believes, and what it never runs again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sweep_rows
from sweep_rows import SWEEP, report, swept

from kvparity.cli.main import main
from kvparity.core.errors import RunFolderError
from kvparity.sweeps import carry_out as carrying
from kvparity.sweeps import reading
from kvparity.sweeps.carry_out import CellEnd, SweepWork, Swept, carry_out
from kvparity.sweeps.installed import Installed
from kvparity.sweeps.planned import PlannedCell, planned
from kvparity.sweeps.process import CellSettings
from kvparity.sweeps.store import SweepStore
from kvparity_contracts.sweep_file import load_sweep

SETTINGS = CellSettings(None, 60.0)
Made = Callable[[PlannedCell], CellEnd]


def carried(
    cells: tuple[PlannedCell, ...], store: SweepStore, made: Made, budget_s: float | None = None
) -> tuple[Swept, list[str]]:
    ran = []

    def runner(cell: PlannedCell, *_: object) -> CellEnd:
        ran.append(cell.id)
        return made(cell)

    return carry_out(SweepWork(cells, store, SETTINGS, budget_s, lambda *_: None), runner), ran


def end(store: SweepStore, code: int = 0, **changes: Any) -> Made:
    def made(cell: PlannedCell) -> CellEnd:
        return sweep_rows.ended(cell, store, report(cell, **changes), code)

    return made


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another release": (
        {"versions": {"transformers": "5.23.1"}}, "asked for transformers 5.23.0, but 5.23.1 ran",
    ),
    "no such package": (
        {"versions": {"transformers": None}},
        "asked for transformers 5.23.0, but none ran",
    ),
    "another device": (
        {"environment": {"device": "cuda"}}, "asked for device cpu, but it ran on cuda",
    ),
    "another format": ({"dtype": "float16"}, "asked for float32, but float16 ran"),
    "another format than it says": (
        {"subject": {"dtype": "bfloat16"}}, "asked for float32, but bfloat16 ran",
    ),
    "another format of a decoder": (
        {"subject": {"execution": "bfloat16"}}, "asked for float32, but bfloat16 ran",
    ),
    "another seed": ({"seed": 1}, "asked for seed 0, but 1 ran"),
    "other sources": (
        {"sources": {"mine.py": "ab"}},
        "its source files, prompts or recordings changed after the sweep was planned",
    ),
    "another contract": ({"sha256": "cd"}, "its evidence is of another contract"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_cell_that_ran_otherwise_than_asked_is_void(
    name: str, cells: tuple[PlannedCell, ...], store: SweepStore
) -> None:
    changes, words = OTHERS[name]
    found, _ = carried(cells[:1], store, end(store, **changes))
    (cell,) = found.cells
    assert (cell.verdict, cell.reason, found.verdict) == ("void", words, "void")
    (row,) = reading.rows_in(store.folder)
    assert (row.claim, row.case_id, row.cell_verdict) == (None, None, "void"), "nothing counts"


@pytest.mark.parametrize(
    ("there", "verdict", "words"),
    [("5.23.0", "error", "it ended with exit code 3 and no report: said"),
     ("5.22.0", "void", "asked for transformers 5.23.0, but 5.22.0 is installed"),
     (None, "void", "asked for transformers 5.23.0, but none is installed")],
)  # fmt: skip
def test_without_a_report_the_releases_are_those_that_are_installed(
    there: str | None, verdict: str, words: str, cells: tuple[PlannedCell, ...], store: SweepStore
) -> None:
    installed = Installed({**sweep_rows.VERSIONS, "transformers": there, "triton": "3.7.1"})
    found, _ = carried(cells[:1], store, lambda cell: CellEnd(3, "said", installed))
    (cell,) = found.cells
    assert (cell.verdict, cell.reason) == (verdict, words)
    (row,) = reading.rows_in(store.folder)
    assert (row.transformers, row.triton, row.claim) == (there, "3.7.1", None)


def test_a_cell_that_ran_as_asked_is_what_its_report_says(
    cells: tuple[PlannedCell, ...], store: SweepStore
) -> None:
    asked = {"torch": "2.13.0+cpu", "python": "3.11.7"}
    versions = cells[0].environment.model_copy(update={"packages": asked})
    cell = replace(cells[0], environment=versions)
    found, _ = carried((cell, cells[1]), store, end(store, verdict="differs"))
    assert [each.verdict for each in found.cells] == ["differs", "differs"]
    first, second = reading.rows_in(store.folder)
    assert (first.transformers, second.transformers) in (
        ("5.23.0", "5.24.0"), ("5.24.0", "5.23.0"),
    )  # fmt: skip
    assert first.first_divergence == "long/0, position 257: 0xc0200000 against 0xc0200001"
    assert (first.case_id, first.claim, first.dtype, first.device_name) == (
        "c000", "decode reduces like prefill", "float32", "Some CPU",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "ran", "void"),
    [("2.13.0", "2.13.0+cpu", False), ("2.13.0+cu130", "2.13.0+cpu", True),
     ("2.13", "2.13.0", False), ("odd", "odd", False), ("odd", "2.13.0", True)],
)  # fmt: skip
def test_releases_are_compared_as_releases(
    asked: str, ran: str, void: bool, cells: tuple[PlannedCell, ...], store: SweepStore
) -> None:
    versions = cells[0].environment.model_copy(update={"packages": {"torch": asked}})
    made = end(store, versions={"torch": ran})
    found, _ = carried((replace(cells[0], environment=versions),), store, made)
    assert (found.cells[0].verdict == "void") is void


def test_what_ended_is_never_run_again_and_the_worst_decides(
    cells: tuple[PlannedCell, ...], store: SweepStore
) -> None:
    verdicts = ("holds", "differs", "error", "holds")
    kinds = {cell.id: verdict for cell, verdict in zip(cells, verdicts, strict=True)}

    def made(cell: PlannedCell) -> CellEnd:
        if kinds[cell.id] == "error":
            return sweep_rows.ended(cell, store, None, 3)
        if cell is cells[3]:
            return CellEnd(130, "interrupted")
        return sweep_rows.ended(cell, store, report(cell, kinds[cell.id]), 0)

    found, ran = carried(cells, store, made)
    assert ran == [cell.id for cell in cells]
    assert [each.verdict for each in found.cells] == ["holds", "differs", "error"]
    assert found.cells[2].reason == "it ended with exit code 3 and no report: kvparity: it said so"
    assert [(each.planned.id, each.why) for each in found.left] == [
        (cells[3].id, "it was interrupted"),
    ]  # fmt: skip
    again, ran = carried(cells, store, end(store))
    assert ran == [cells[3].id]
    assert [each.before for each in again.cells] == [True, True, True, False]
    assert [each.verdict for each in again.cells] == ["holds", "differs", "error", "holds"]
    assert (again.verdict, again.left) == ("error", ())


def test_a_report_whose_rows_were_not_written_is_not_made_again(
    cells: tuple[PlannedCell, ...], store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill between the two leaves it."""
    with monkeypatch.context() as patch:
        patch.setattr(SweepStore, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            carried(cells[:1], store, end(store))
    assert not store.ended(cells[0].id)
    found, ran = carried(cells[:1], store, end(store))
    assert (ran, found.cells[0].verdict, store.ended(cells[0].id)) == ([], "holds", True)


@pytest.mark.parametrize("ended", [CellEnd(None, ""), CellEnd(-9, ""), CellEnd(130, ""),
                                   CellEnd(2, "kvparity: another kvparity runs in x")])  # fmt: skip
def test_what_is_no_end_is_left_and_nothing_holds(
    ended: CellEnd, cells: tuple[PlannedCell, ...], store: SweepStore
) -> None:
    found, _ = carried(cells[:1], store, lambda cell: ended)
    assert (found.verdict, len(found.left), store.ended(cells[0].id)) == ("void", 1, False)
    found, _ = carried(cells[:2], store, end(store), budget_s=1e-9)
    assert [each.why for each in found.left] == ["the budget is spent"] * 2
    made = end(store)
    found, _ = carried(cells[:2], store, lambda cell: ended if cell is cells[0] else made(cell))
    assert ([each.verdict for each in found.cells], found.verdict) == (["holds"], "void")


def test_two_sweeps_do_not_write_one_store(store: SweepStore) -> None:
    with store.alone(), pytest.raises(RunFolderError, match="another kvparity"), store.alone():
        pass


def test_a_cell_is_found_again_by_all_that_decides_it(tmp_path: Path) -> None:
    def ids(text: str = SWEEP) -> set[str]:
        return {each.id for each in planned(load_sweep(swept(tmp_path, text)))}

    before = ids()
    assert len(before) == 4
    assert ids() == before
    assert ids(SWEEP.replace("name: old", "name: older")) == before, "a name decides nothing"
    for old, new in (("5.23.0", "5.22.0"), ("[float32, bfloat16]", "[float16, bfloat16]")):
        assert len(ids(SWEEP.replace(old, new)) - before) == 2
    assert ids(SWEEP + "seeds: [1]\n").isdisjoint(before)
    python = f"old, python: {sys.executable}"
    assert len(ids(SWEEP.replace("old", python)) - before) == 2
    edited = tmp_path / "tiny.yaml"
    text = edited.read_text()
    file = swept(tmp_path, SWEEP)
    edited.write_text(text + "\n")
    assert {each.id for each in planned(load_sweep(file))}.isdisjoint(before)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = swept(tmp_path, SWEEP), tmp_path / "store"

    def runner(cell: PlannedCell, at: SweepStore, *_: object) -> CellEnd:
        verdict = "differs" if cell.cell.version == "new" else "holds"
        return sweep_rows.ended(cell, at, report(cell, verdict), 0)

    monkeypatch.setattr(carrying, "run_cell", runner)
    line = ["sweep", str(file), "--store", str(folder)]
    assert main([*line, "--list"]) == 0
    assert capsys.readouterr().out.count("left") == 4
    assert main([*line, "--budget", "1e-9"]) == 5
    assert "4 of 4 cells are left; --resume runs them" in capsys.readouterr().out
    assert main([*line, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], [cell["verdict"] for cell in found["cells"]]) == (
        "differs", ["holds", "differs", "holds", "differs"],
    )  # fmt: skip
    assert main(line) == 2
    assert "holds 4 of these 4 cells; add --resume" in capsys.readouterr().err
    assert main([*line, "--resume"]) == 1
    assert capsys.readouterr().out.count("in an earlier run") == 4
    assert main([*line, "--budget", "0"]) == 2
    file.write_text(SWEEP.replace("name: old", "name: old, python: nowhere"))
    assert main(line) == 2
    assert "there is no interpreter" in capsys.readouterr().err

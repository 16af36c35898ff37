"""What changed between two runs: each thing by itself, and nothing where nothing did."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_documents
from browser import Browser, read_by_people
from run_documents import DIVERGENCE, case, control

from kvparity.cli.main import main
from kvparity.report.compare.changes import RunsCompared, compare
from kvparity.report.compare.text import SECTIONS
from kvparity.report.finished import read

DIFFERS = case(
    id="c001", path="batched", verdict="differs", reason="bits differ", differing_tokens=1,
    differing_rows=1, max_ulp=1, first_divergence=DIVERGENCE,
)  # fmt: skip
UNIT = {
    "unit": "long, bfloat16",
    "sequences": [{"id": "long/0", "prompt": 2, "ids": [1, 2, 3]}],
    "subject": {}, "observed": {}, "launches": {}, "seconds": {},
    "rows": {"decode": [[0, 2, "0x00000000000000aa", ["0xc0200000"]]]},
}  # fmt: skip
Edit = Callable[[dict[str, Any], dict[str, Any]], object]


def written(folder: Path, edit: Edit | None = None) -> Path:
    """A run folder with a report and a unit, edited."""
    whole = json.loads(json.dumps(run_documents.report("differs", case(), DIFFERS)))
    unit = json.loads(json.dumps(UNIT))
    if edit is not None:
        edit(whole, unit)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(whole))
    (folder / "units.jsonl").write_text(json.dumps(unit) + "\n")
    return folder


def first(report: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = report["checks"][0]["cases"][1]
    return found


OTHER = {"reference_bits": "0xc0200003", "reference_digest": "0x00000000000000cc"}
CHANGES: dict[str, tuple[Edit, str, str]] = {
    "a verdict": (
        lambda r, u: r.update(verdict="holds"), "verdicts", "the run: differs -> holds",
    ),
    "a case holds": (
        lambda r, u: r["checks"][0]["cases"].__setitem__(
            1, case(id="c001", path="batched")
        ),
        "verdicts",
        "batched over long against prefill, bfloat16, temperature 0.7: differs -> holds",
    ),
    "a case is new": (
        lambda r, u: r["checks"][0]["cases"].append(case(id="c002", path="mixed")),
        "verdicts", "mixed over long against prefill, bfloat16, temperature 0.7: – -> holds",
    ),
    "a case is gone": (
        lambda r, u: r["checks"][0]["cases"].pop(), "verdicts", "differs -> –  WORSE",
    ),
    "a count": (lambda r, u: first(r).update(differing_tokens=2), "measures", "tokens: 1 -> 2"),
    "a distance": (
        lambda r, u: first(r).update(max_abs_dlogp=0.5), "measures", "max_abs_dlogp: 0 -> 0.5",
    ),
    "bits of a divergence": (
        lambda r, u: first(r)["first_divergence"].update(OTHER), "measures", "0xc0200003",
    ),
    "bits of a row that holds": (
        lambda r, u: u["rows"]["decode"][0].__setitem__(2, "0x00000000000000ab"),
        "bits", "long, bfloat16: decode, sequence 0, position 2: 0x00000000000000aa: 0xc0200000 -> "
        "0x00000000000000ab",
    ),
    "tokens": (
        lambda r, u: u["sequences"][0].update(ids=[1, 2, 4]), "bits", "1 of 1 sequences are others",
    ),
    "a control": (
        lambda r, u: r.update(controls=[control(caught=False, seen="holds: x")]), "controls",
        "stale-slot (invariance): caught: bits differ: 3 of 3 tokens -> missed: holds: x  WORSE",
    ),
    "a version": (
        lambda r, u: r["environment"]["versions"].update(torch="2.10.0"), "environment",
        "versions.torch: 2.9.0 -> 2.10.0",
    ),
    "the subject": (
        lambda r, u: r["subject"].update(weights=None), "subject", "weights: – -> null",
    ),
    "a kernel": (
        lambda r, u: r["kernels"]["attention.prefill"].update(hash="x"), "subject", "hash: – -> x",
    ),
    "the contract": (lambda r, u: r["contract"].update(sha256="cd"), "contract", "ab -> cd"),
}  # fmt: skip


def changed(found: RunsCompared) -> set[str]:
    return {field for field, _ in SECTIONS if getattr(found, field)}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_told_and_nothing_else(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, field, words = CHANGES[name]
    before, after = written(tmp_path / "a"), written(tmp_path / "b", edit)
    found = compare(read(before), read(after))
    assert changed(found) == {field}
    results = field in ("verdicts", "measures", "bits", "controls")
    assert found.same is not results
    assert main(["report", "--compare", str(before), str(after)]) == int(results)
    assert words in capsys.readouterr().out


def test_the_same_run_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "a")
    b = written(tmp_path / "b", lambda r, u: first(r).update(id="c009"))  # ids say nothing
    assert main(["report", "--compare", str(a), str(b), "--json", "--html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["same"], found["cases_alike"]) == (True, 2)
    assert [found[field] for field, _ in SECTIONS] == [[]] * len(SECTIONS)
    assert "The same results" in (b / "compare.html").read_text()


def test_a_page_of_changes_escapes_them(tmp_path: Path) -> None:
    def edit(report: dict[str, Any], unit: object) -> None:
        report["environment"]["device_name"] = "<script>alert(1)</script>"
        report["contract"]["path"] = str(contract)

    contract = tmp_path / "contract.yaml"
    a, b, page = written(tmp_path / "a"), written(tmp_path / "b", edit), tmp_path / "page.html"
    assert main(["report", "--compare", str(a), str(b), "--html", str(page)]) == 0
    text = page.read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!#|data:)', text)


def test_what_is_asked_for_is_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = str(written(tmp_path / "a"))
    for arguments, words in (
        ([], "expected RUN_DIR, or --compare A B"),
        ([a, "--compare", a, a], "expected one of them"),
        (["--html", a], f"write kvparity report {a} --html"),
        (["--compare", a, str(tmp_path / "none")], "holds no run"),
    ):
        assert main(["report", *arguments]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.browser
def test_people_can_read_what_changed(tmp_path: Path, browser: Browser) -> None:
    def other(run: Any, units: Any) -> None:
        next(iter(CHANGES.values()))[0](run, units)
        run["contract"].update(sha256="cd" * 200)

    a, b = written(tmp_path / "a"), written(tmp_path / "b", other)
    assert main(["report", "--compare", str(a), str(b), "--html"]) == 1
    read_by_people(browser, b / "compare.html")
    browser.press("Tab")
    assert browser.value("document.activeElement.className") == "wide"

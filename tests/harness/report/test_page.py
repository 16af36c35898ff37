"""A run as one page: all that its folder holds, escaped; and in a browser, as people read it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_documents
from browser import Browser, read_by_people
from case_details import line
from toy import Toy
from toy_verification import BITS, NEAR, verify

from kvparity.births.document import KeptAccount, LocatedMap, LocatedOperation, file_of
from kvparity.cli.main import main
from kvparity.core import plots
from kvparity.relations.registry import RELATIONS
from kvparity.report.document import RunReport
from kvparity.report.finished import finished
from kvparity.report.page.bit_groups import bit_groups
from kvparity.report.page.layer_map import layer_map
from kvparity.report.page.render import page

MARKUP = "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
OPERATIONS = (
    LocatedOperation(operation="embed", differs=(), born=(), ulps=0),
    LocatedOperation(operation="model.layers.0.attn attention", differs=(0, 1), born=(0,), ulps=7),
    LocatedOperation(operation="model.layers.1.attn attention", differs=(1,), born=(), ulps=0),
    LocatedOperation(operation="model.layers.10.mlp" + MARKUP, differs=(1,), born=(1,), ulps=2),
)
MAP = LocatedMap(places=(("w/0", 3), (MARKUP, 4)), operations=OPERATIONS)
ACCOUNT = KeptAccount(case="c001", words="x", said=("born in " + MARKUP,), map=MAP)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that differs, with an account of a case, and somebody else's words in every place."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        verify(
            folder, patch, Toy("batch-dependent"),
            checks=[BITS, NEAR, {"name": MARKUP, "relation": "cache", "paths": ["decode"]}],
            workloads=[{"name": "w", "prompt_tokens": [3, 17], "generate": 3}],
        )  # fmt: skip
    found = json.loads((folder / "run/run.json").read_text())
    found["environment"]["device_name"] = MARKUP
    found["subject"] |= {MARKUP: MARKUP, "kind": "decoder"}
    found["command"] = f"kvparity verify '{MARKUP}'"
    (folder / "run/run.json").write_text(json.dumps(found))
    file = file_of(folder / "run", "c001")
    file.parent.mkdir()
    (bad,) = (each["id"] for each in found["checks"][0]["cases"][1:2])
    file.with_stem(bad).write_text(ACCOUNT.model_copy(update={"case": bad}).model_dump_json())
    return folder / "run"


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return page(run, finished(run))


def test_a_page_holds_all_of_its_run(run: Path, text: str) -> None:
    report = finished(run)
    bad = next(each for each in report.checks[0].cases if each.verdict == "differs")
    assert bad.first_divergence is not None
    for words in (
        report.contract.sha256, "temperatures", bad.first_divergence.reference_bits, "<mark>",
        bad.first_divergence.candidate_digest, f"kvparity replay {run} {bad.id}",
        f"kvparity locate {run} {bad.id}", f"kvparity shrink {run} {bad.id}", "model.layers 10",
        "Drift: d = trainer", "wrong-input", report.environment.versions["torch"],
    ):  # fmt: skip
        assert str(words) in text
    assert {case.id for each in report.checks for case in each.cases} == set(
        re.findall(r'<div id="(c\d+)">', text)
    )
    assert text.count("data:image/svg+xml;base64,") >= 5  # four of drift, one of operations


def test_words_of_others_are_no_markup_and_nothing_is_fetched(text: str) -> None:
    assert text.count("<script") == text.count("</script>") == 1
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 6
    assert not re.search(r'(src|href)="(?!#|data:)', text)


@pytest.mark.parametrize("verdict", ["holds", "differs", "void", "error"])
def test_cases_of_every_relation_have_their_place(verdict: str, tmp_path: Path) -> None:
    cases = [line(name, verdict, id=f"c{n:03}") for n, name in enumerate(RELATIONS)]
    for each in cases:
        if each["relation"] in ("order", "audit", "parity"):
            each["workload"] = None
    whole = run_documents.report(verdict)
    (check,) = whole["checks"]
    whole["checks"] = [
        check | {"name": f"of {each['relation']}", "relation": each["relation"], "cases": [each]}
        for each in cases
    ]
    found = page(tmp_path, RunReport.model_validate(whole))
    for each in cases:
        assert f'<div id="{each["id"]}">' in found
        assert ("What only " + each["relation"] in found) == (each["relation"] != "invariance")
    assert found.count("First divergence") == (len(cases) if verdict == "differs" else 0)
    assert "has changed since" in found  # the contract of this report is nowhere


def test_bits_that_differ_are_marked() -> None:
    assert [(each.text, each.differs) for each in bit_groups("0x3f", "0x3c")] == [
        ("0011 11", False), ("11", True),
    ]  # fmt: skip
    assert [each.text for each in bit_groups("0x0f", "0x0f")] == ["0000 1111"]


def test_operations_lie_in_their_layers() -> None:
    found = layer_map(MAP)
    assert found.columns[:2] == ("embed", "attn attention")
    assert [row.name for row in found.rows] == [
        "model.layers 0", "model.layers 1", "model.layers 10", "",
    ]  # fmt: skip
    first = found.rows[0].cells[1]
    assert first is not None
    assert (first.born, first.differs, first.ulps, first.shade) == (1, 2, 7, 4)


Damage = Callable[[Path, Any], object]


def _edited(change: Callable[[Any], Any]) -> Damage:
    return lambda folder, found: (folder / "run.json").write_text(json.dumps(change(found)))


def _failure(folder: Path) -> Path:
    return next((folder / "failures").glob("*.safetensors"))


def _account(**changes: Any) -> Damage:
    kept = ACCOUNT.model_copy(update=changes).model_dump_json()
    return lambda folder, _: (folder / "located/c001.json").write_text(kept)


DAMAGED: dict[str, tuple[Damage, str]] = {
    "not ended": (lambda folder, _: (folder / "run.json").unlink(), "has not ended"),
    "torn": (
        lambda folder, _: (folder / "run.json").write_text('{"verdict": "hol'), "is damaged",
    ),
    "another document": (_edited(lambda _: {"verdict": "x"}), "has schema 1, and reports"),
    "another type": (_edited(lambda it: it | {"elapsed_s": "soon"}), "elapsed_s is 'soon'"),
    "a contradiction": (
        _edited(lambda it: it["checks"][0]["cases"][0].update(differing_rows=1) or it),
        "it holds, and differing_rows is 1",
    ),
    "no file of a case": (lambda folder, _: _failure(folder).unlink(), "is missing"),
    "a torn file of a case": (
        lambda folder, _: _failure(folder).write_bytes(b"\x08"), "cannot be read",
    ),
    "another's account": (_account(case="c002"), "is about case c002"),
    "an account of other places": (
        _account(map=MAP.model_copy(update={"places": ()})), "at a place that is not listed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_folder_is_one_sentence(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    for file in (each for each in run.rglob("*") if each.is_file()):
        copy = folder / file.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    damage, words = DAMAGED[name]
    damage(folder, json.loads((folder / "run.json").read_text()))
    assert main(["report", str(folder), "--html"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("kvparity: ")
    assert said.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_what_is_no_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for half in ("before", "after"):
        (tmp_path / "two" / half).mkdir(parents=True)
        (tmp_path / "two" / half / "run.json").touch()
    for name, words in (("nothing", "holds no run"), ("two", "holds two runs; give")):
        assert main(["report", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err


def test_the_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["report", str(run)]) == 0
    assert "DIFFERS" in capsys.readouterr().out
    assert main(["report", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "run.json").read_text())
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for file, words in ((mine, "is no HTML page"), (tmp_path / "a/b", "there is no folder")):
        assert main(["report", str(run), "--html", str(file)]) == 2
        assert words in capsys.readouterr().err
    assert mine.read_text() == "mine"
    monkeypatch.setattr(plots, "missing", lambda what: f"{what} needs more")
    assert main(["report", str(run), "--html", str(tmp_path / "page.html")]) == 3
    assert "page.html needs more" in capsys.readouterr().err


@pytest.mark.browser
def test_people_can_read_it(text: str, tmp_path: Path, browser: Browser) -> None:
    """And with keys alone."""
    file = tmp_path / "report.html"
    file.write_text(text)
    read_by_people(browser, file)
    # A link to a case that is folded away opens it, from the keyboard.
    last = browser.value("[...document.querySelectorAll('.case [id]')].at(-1).id")
    folded = f"document.querySelector('#{last}').closest('details').open"
    assert browser.value(folded) is False
    focused = set()
    for _ in range(300):
        browser.press("Tab")
        at = browser.value("document.activeElement.getAttribute('href')")
        focused.add(browser.value("document.activeElement.tagName"))
        if at == f"#{last}":
            break
    browser.press("Enter", "\r")
    assert browser.value(f"location.hash === '#{last}'")
    assert browser.value(folded) is True
    assert {"A", "SUMMARY", "DIV"} <= focused, "links, folds and tables that scroll"
    button = "[...document.querySelectorAll('button.copy')].at(-1)"
    browser.value(f"{button}.focus()")
    browser.press("Enter", "\r")
    browser.value("new Promise(go => setTimeout(() => go(1), 50))")
    assert browser.value(f"{button}.textContent") in ("copied", "selected")
    assert browser.value("getSelection().toString()").startswith("kvparity ")
    assert browser.told == []

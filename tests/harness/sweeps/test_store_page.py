"""A store as one page: its grid in words, the first bad version marked, escaped; in a browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from browser import asked_outside, started
from sweep_rows import row

from kvparity.cli.main import main
from kvparity.report.page.render import scripted
from kvparity.sweeps.history import history
from kvparity.sweeps.page_view import StoreView, store_view
from kvparity.sweeps.store import SweepStore
from kvparity.sweeps.store_rows import StoreRow

MARKUP = "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
ROWS = (
    row("5.9.0", environment="older", sweep="some"),
    row("5.9.0", environment="older", dtype="bfloat16"),
    row("5.10.0", "differs", environment="newer", first_divergence="w/0, position 3" + MARKUP),
    row("5.9.0", environment="older", contract="other", reason=MARKUP),
    row("5.10.0", "void", environment="newer", contract="other", claim=None, case_id=None),
)


def view_of(rows: Sequence[StoreRow]) -> StoreView:
    return store_view("some", rows, history(rows))


def test_the_grid_says_in_words_what_each_cell_is() -> None:
    view = view_of(ROWS)
    assert view.columns == (("older", "float32"), ("older", "bfloat16"), ("newer", "float32"))
    assert view.spans == (("older", 2), ("newer", 1))
    said = [[cell and (cell.verdict, cell.first_bad) for cell in line.cells] for line in view.grid]
    assert said == [
        [("holds", ()), ("holds", ()), ("differs", ("same bits",))],
        [("holds", ()), None, ("void", ())],
    ]
    assert (view.verdict, view.counts) == ("differs", "3 holds, 1 differs, 1 void, 1 not run")
    assert len(view.turned) == 1
    two = view_of([*ROWS, row(seed=1, environment="older")])
    assert two.grid[-1].name == "paged, cpu, seed 1"


@pytest.mark.parametrize(
    "beside",
    [
        {"device": "cuda", "device_name": "Some GPU"},
        {"packages": {"torch": "2.12.0"}},
        {"contract_sha256": "cd"},
    ],
    ids=["another device", "other packages", "an edited contract"],
)
def test_a_cell_in_which_a_claim_holds_is_not_where_it_is_first_bad(beside: dict[str, Any]) -> None:
    """Though it turned bad in the same release elsewhere."""
    good = [row(release, **{"environment": release} | beside) for release in ("5.9.0", "5.10.0")]
    bad = [row("5.9.0"), row("5.10.0", "differs", environment="newer")]
    cells = [cell for line in view_of([*bad, *good]).grid for cell in line.cells if cell]
    marked = [cell.verdict for cell in cells if cell.first_bad]
    assert marked == ["differs"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    store = SweepStore(tmp_path / "store")
    with store.alone():
        for number, each in enumerate(ROWS):
            store.write(f"c{number}", [each])
    assert main(["report", str(store.folder), "--html"]) == 0
    return store.folder / "report.html"


def test_the_page_is_whole_and_words_of_others_are_no_markup(page: Path) -> None:
    text = page.read_text()
    assert text.count("<b>first bad</b>") == 1
    assert "first bad version: transformers 5.10.0 (differs; 5.9.0 holds)" in text
    assert re.search(r"<td>not run</td>", text)
    links = set(re.findall(r'href="#(cell-[^"]+)"', text))
    assert links == set(re.findall(r'<div id="(cell-[^"]+)"', text))
    assert len(links) == 5
    assert text.count("<script") == text.count("</script>") == 1
    assert "<img" not in text
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert "alert(1)" not in scripted("sweep.html", view_of(ROWS[:1]))


@pytest.mark.browser
def test_people_can_read_it(page: Path, tmp_path: Path) -> None:
    """Light and dark, on a phone; a link of the grid opens its cell; nothing is fetched."""
    with started(tmp_path / "profile") as browser:
        backs = set()
        for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
            browser.open(page, width=width, dark=dark)
            assert browser.value("document.documentElement.scrollWidth") <= width
            backs.add(browser.value("getComputedStyle(document.body).backgroundColor"))
            assert browser.told == []
            assert asked_outside(browser.asked) == []
        assert len(backs) == 2
        folded = "document.querySelector('#cell-0-2').closest('details').open"
        assert browser.value(folded) is False
        browser.value("document.querySelector('a[href=\"#cell-0-2\"]').focus()")
        browser.press("Enter", "\r")
        browser.value("new Promise(go => setTimeout(() => go(1), 50))")
        assert browser.value(folded) is True
        assert browser.told == []

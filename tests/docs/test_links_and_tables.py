"""Links lead somewhere, and generated tables are fresh."""

from __future__ import annotations

import pytest
import tables
from pages import IDS, PAGES, ROOT, broken_links, table_rows

from kvparity.core.exit_codes import ExitCode
from kvparity_contracts import CONTROLS
from kvparity_contracts.paths import KINDS

CONTRACTS = (ROOT / "docs" / "contracts.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_lead_somewhere(page):
    assert broken_links(page, page.read_text()) == []


def test_a_broken_link_is_seen():
    page = ROOT / "docs" / "tutorial.md"
    text = (
        "# A heading\n[a](contracts.md) [b](nowhere.md) [c](#a-heading) [d](#none) [e](https://x)"
    )
    text += " [f](contracts.md#paths) [g](contracts.md#no-such-part)"
    assert broken_links(page, text) == ["nowhere.md", "#none", "contracts.md#no-such-part"]


def test_generated_tables_are_fresh():
    stale = [str(page.relative_to(ROOT)) for page in tables.stale()]
    assert stale == [], "run: python ci/docs/tables.py"


def test_a_stale_table_is_seen():
    assert tables.fresh(CONTRACTS) == CONTRACTS
    changed = CONTRACTS.replace("the number of splits follows the batch", "something else")
    assert changed != CONTRACTS
    assert tables.fresh(changed) == CONTRACTS


def test_every_block_is_used():
    used = {m["name"] for page in PAGES for m in tables.BLOCK.finditer(page.read_text())}
    assert used == set(tables.BLOCKS)


def test_every_control_and_path_has_its_row():
    rows = {row[0] for row in table_rows(CONTRACTS, "<!-- begin generated: controls -->")}
    assert rows == {f"`{name}`" for name in CONTROLS}
    paths = table_rows(CONTRACTS, "<!-- begin generated: paths -->")
    assert {row[0].strip("`").partition("(")[0] for row in paths} == set(KINDS)
    links = [row[-1] for row in table_rows(CONTRACTS, "<!-- begin generated: controls -->")]
    assert all("](https://github.com/" in link for link in links), links


@pytest.mark.parametrize(
    ("page", "after"),
    [("README.md", "| exit code |"), ("docs/contracts.md", "generated: exit-codes")],
)
def test_the_exit_codes_are_all_told(page, after):
    text = "\n" + (ROOT / page).read_text()
    start = text.rindex("\n", 0, text.index(after))
    rows = table_rows(text[start:], "\n" if after.startswith("|") else after)
    assert [int(row[0].strip("`")) for row in rows] == [int(code) for code in ExitCode]

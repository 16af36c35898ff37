"""The site: every page is in its contents, and every link of a page leads to one that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import site_pages
from pages import ROOT

CONFIG = (ROOT / "ci/docs/mkdocs.yml").read_text()


def named(nav: str) -> Iterator[str]:
    """The pages that the contents name."""
    return (found[1] for found in re.finditer(r"([\w/-]+\.md)$", nav, re.MULTILINE))


def test_the_contents_name_every_page_once() -> None:
    nav = list(named(CONFIG.partition("\nnav:\n")[2]))
    made = {*site_pages.pages(), *(f"api/{name}.md" for name in site_pages.API)}
    assert sorted(nav) == sorted(made), "a page has its place in nav of ci/docs/mkdocs.yml"


def test_what_is_gathered_has_no_link_out_of_it(tmp_path: Path) -> None:
    site_pages.gather(tmp_path)
    links = 0
    for page in tmp_path.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            links += 1
    assert links > 100
    assert (tmp_path / "files/ci/action/action.yml.txt").is_file()
    assert "](tutorial.md)" in (tmp_path / "index.md").read_text()
    assert "::: kvparity.verify" in (tmp_path / "api/python.md").read_text()


def test_a_link_is_changed_only_where_its_page_lies_elsewhere(tmp_path: Path) -> None:
    for name, text in {
        "README.md": "[a](docs/x.md#y) [b](ci/run) [c](https://e) [d](#here) [e](none.md)",
        "CONTRIBUTING.md": "",
        "docs/x.md": "[a](../README.md) [b](r/y.md) [c](p.svg)",
        "docs/r/y.md": "[a](../x.md#z) [b](../../CONTRIBUTING.md)",
        "docs/p.svg": "",
        "ci/run": "",
    }.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    out = tmp_path / "out"
    site_pages.gather(out, tmp_path / "root")
    assert (out / "index.md").read_text() == (
        "[a](x.md#y) [b](files/ci/run.txt) [c](https://e) [d](#here) [e](none.md)"
    )
    assert (out / "x.md").read_text() == "[a](index.md) [b](r/y.md) [c](p.svg)"
    assert (out / "r/y.md").read_text() == "[a](../x.md#z) [b](../CONTRIBUTING.md)"
    assert (out / "files/ci/run.txt").is_file()
    assert (out / "p.svg").is_file()

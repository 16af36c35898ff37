"""The tutorial does what it says."""

from __future__ import annotations

import pytest
from pages import PAGES, ROOT, fences
from shell import NO_RUN, missing


def test_every_command_ends_as_the_page_says(tutorial):
    _, ran = tutorial
    assert len(ran) >= 10
    for each in ran:
        allowed = (0, 1) if each.machine_dependent else (0,)
        assert each.code in allowed, f"{each.command}: exit code {each.code}\n{each.printed}"


def test_every_command_prints_what_the_page_shows(tutorial):
    _, ran = tutorial
    for each in ran:
        if not each.machine_dependent:
            lost = missing(each.shown, each.printed)
            assert lost is None, f"{each.command}: {lost!r} is not in\n" + "\n".join(each.printed)


def test_where_the_machine_decides_a_verdict_is_reached(tutorial):
    _, ran = tutorial
    dependent = [each for each in ran if each.machine_dependent]
    assert dependent
    for each in dependent:
        word = {0: "HOLDS", 1: "DIFFERS"}[each.code]
        name = each.shown[0].partition(":")[0]
        assert each.printed[0].startswith(f"{name}: {word}  (")


def test_nothing_is_left_out_of_the_run_but_what_others_run():
    text = (ROOT / "docs" / "tutorial.md").read_text()
    skipped = [f for f in fences(text) if f.language == "console" and "no-run" in f.words]
    assert {command for f in skipped for command, _ in f.commands()} <= NO_RUN


def test_files_to_write_are_only_on_pages_that_a_test_writes():
    # Another page's files would be written by nobody.
    with_files = {p.name for p in PAGES if [f for f in fences(p.read_text()) if f.title]}
    written = {"tutorial.md", "codec.md", "servers.md", "python.md", "pytest.md"}
    assert with_files == written | {"drift-to-cause.md", "shrink.md"}
    assert "python.md" in (ROOT / "tests/docs/test_python_page.py").read_text()
    assert "drift-to-cause.md" in (ROOT / "tests/docs/test_drift_to_cause_page.py").read_text()
    assert "shrink.md" in (ROOT / "tests/docs/test_shrink_page.py").read_text()
    assert "pytest.md" in (ROOT / "tests/docs/test_pytest_page.py").read_text()
    assert "servers.md" in (ROOT / "tests/docs/test_servers_page.py").read_text()
    assert "codec.md" in (ROOT / "tests/harness/labs/codec/test_codec_page.py").read_text()


@pytest.mark.parametrize(
    ("shown", "lost"),
    [
        (["good: HOLDS  (3.1 s)", "    decode   8 ok", "evidence: x"], None),
        (["good: HOLDS  (9.9 s)", "...", "evidence: x"], None),
        (["good: DIFFERS  (3.1 s)"], "good: DIFFERS  (3.1 s)"),
        (["    decode   8 off"], "    decode   8 off"),
        (["evidence: x", "good: HOLDS  (1.0 s)"], "good: HOLDS  (1.0 s)"),
        (["    decode ..."], None),
        (["    prefill ..."], "    prefill ..."),
    ],
)
def test_a_page_that_shows_something_else_is_seen(shown, lost):
    printed = [
        "good: HOLDS  (12.0 s)",
        "  on cpu (this one)",
        "",
        "    decode  16 ok",
        "evidence: x",
    ]
    assert missing(shown, printed) == lost

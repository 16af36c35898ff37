"""The steps of ci/gpu are there, parse, are told of on the results page, and read reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gpu_steps import run
from gpu_steps.reading import read_junit
from gpu_steps.steps import BESIDE, STEPS

ROOT = Path(__file__).parents[2]


def test_what_is_wanted_most_comes_first():
    names = [each.name for each in STEPS]
    assert names[:6] == [
        "doctor", "compile", "tests", "verify-smoke", "verify-attention", "verify-decoder"
    ]  # fmt: skip
    assert names.index("bench") < names.index("bits-sdpa")
    assert names[-1] == "sanitizer"


def test_the_list_names_every_step_once(capsys):
    assert run.main(["--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [each.name for each in STEPS]
    assert len(set(names)) == len(names)
    assert {name for pair in BESIDE for name in pair} <= set(names)
    with pytest.raises(SystemExit, match="2"):
        run.main(["--only", "no-such-step"])


def test_the_contracts_of_the_steps_are_there():
    from kvparity_contracts import find, load

    verbs = [each.command for each in STEPS if "kvparity" in each.command]
    contracts = {command[4] for command in verbs if command[3] in ("verify", "audit")}
    assert len(contracts) >= 6
    for name in contracts:
        assert load(ROOT / name if "/" in name else find(name))


def test_the_arguments_of_the_steps_parse():
    from kvparity.cli.main import parser

    for each in STEPS:
        if "kvparity" in each.command:
            assert parser().parse_args(list(each.command[3:])).run


def test_the_results_page_names_steps_that_run_what_it_says():
    page = (ROOT / "docs" / "results" / "README.md").read_text()
    commands = {each.name: " ".join(each.command) for each in STEPS}
    named = set()
    for line in page.splitlines():
        told = re.search(
            r"`ci/gpu --only ([a-z0-9 -]+)`(?:: `kvparity (verify \S+ --device cuda)`)?", line
        )
        if told:
            names = told[1].split()
            assert set(names) <= set(commands)
            assert told[2] is None or told[2] in commands[names[-1]]
            named |= set(names)
    assert named == set(commands) - {"doctor", "compile"}


def test_test_reports(tmp_path):
    def report(inside: str) -> str:
        (tmp_path / "tests.xml").write_text(
            f"<testsuites><testsuite>{inside}</testsuite></testsuites>"
        )
        return read_junit("", tmp_path)[0]

    fine = '<testcase classname="a" name="b" time="1"/>'
    assert report(fine) == "passed"
    assert report("") == "failed"  # no test has shown nothing
    for bad in ("failure", "error", "skipped"):
        assert (
            report(f'{fine}<testcase classname="a" name="c"><{bad} message="m"/></testcase>')
            == "failed"
        )
    (tmp_path / "tests.xml").unlink()
    with pytest.raises(ValueError, match="left no report"):
        read_junit("", tmp_path)

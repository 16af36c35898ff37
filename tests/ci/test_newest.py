"""ci/newest names what changed and what broke; no check of its list is a name of nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import newest
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_check_is_a_file_and_stands_for_one_library():
    found = [path for patterns in newest.CHECKS.values() for path in newest.files(patterns)]
    assert len(found) == len(set(found)) > 20
    with pytest.raises(ValueError, match=r"no file is called tests/gone\.py"):
        newest.files(["tests/gone.py"])


def test_all_tests_of_what_is_relied_on_and_of_transformers_are_among_them():
    checked = {path for patterns in newest.CHECKS.values() for path in newest.files(patterns)}
    for folder, names in (("core/relied", "test_*.py"), ("subjects/hf", "test_*.py")):
        there = (ROOT / "tests/harness" / folder).glob(names)
        assert {str(path.resolve().relative_to(ROOT)) for path in there} <= checked


def test_versions_that_are_not_the_pinned_ones_are_named():
    pinned = {"torch": "2.13.0", "transformers": "5.24.0", "tqdm": "4", "gone": "1"}
    found = {"torch": "2.13.0+cpu", "transformers": "5.25.0", "tqdm": "4", "new": "3", "gone": None}
    assert [*newest.changed(pinned, found.items())] == [
        "gone 1 -> not installed",
        "new 3 (not pinned)",
        "transformers 5.24.0 -> 5.25.0",
    ]


TESTS = """
import pytest


def test_passes():
    pass


def test_breaks():
    raise TypeError("no argument past_key_values\\nand more")


@pytest.mark.skip(reason="here")
def test_is_skipped():
    pass


@pytest.fixture
def broken():
    raise RuntimeError("of a fixture")


def test_does_not_begin(broken):
    pass
"""


def report(folder, text):
    """pytest's own report of a file that lies where one of the checks does."""
    path = folder / "tests/harness/core/test_versions.py"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    out = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", "--rootdir=."]
    subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--junitxml={out}", str(path.relative_to(folder))],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    return out.read_text(encoding="utf-8")


def test_what_broke_is_read_from_the_report_of_pytest(tmp_path):
    ran, broke = newest.of_tests(report(tmp_path, TESTS))
    path = "tests/harness/core/test_versions.py"
    assert ran == 3
    assert [str(each) for each in broke] == [
        f"what is relied on: {path}::test_breaks: TypeError: no argument past_key_values",
        f'what is relied on: {path}::test_does_not_begin: failed on setup with "RuntimeError: of a '
        'fixture"',
    ]


def test_a_file_that_does_not_import_broke(tmp_path):
    _, broke = newest.of_tests(report(tmp_path, "import no_such_module_at_all\n"))
    assert [each.words for each in broke] == ["collection failure"]


def test_what_doctor_says_does_not_work_broke_and_so_is_what_is_not_there():
    found = newest.of_doctor(
        '{"trials": {"order": {"problem": null, "missing": null}, "transformers": {"problem": '
        '"it fell", "missing": null}, "flashinfer": {"problem": null, "missing": "pip it"}}}'
    )
    assert [str(each) for each in found] == [
        "transformers: doctor: it fell",
        "flashinfer: doctor: not installed: pip it",
    ]
    for nothing in ("", "Traceback", '{"verdict": "error"}'):
        assert [each.library for each in newest.of_doctor(nothing)] == ["kvparity"]


@pytest.mark.parametrize("ended", [1, 5])
def test_a_run_of_pytest_that_ends_without_a_report_broke(monkeypatch, ended):
    monkeypatch.setattr(
        newest.subprocess, "run", lambda *a, **b: subprocess.CompletedProcess(a, ended)
    )
    assert newest._tests([])[1] == [
        newest.Broke("pytest", "the run", f"exit code {ended} and no report")
    ]


@pytest.mark.parametrize("broke", [[], [newest.Broke("torch", "a test", "an error")]])
def test_the_exit_code_and_the_last_words(monkeypatch, capsys, broke):
    monkeypatch.setattr(newest, "_doctor", lambda: [])
    monkeypatch.setattr(newest, "_tests", lambda more: (7, broke))
    assert newest.main([]) == len(broke)
    out = capsys.readouterr().out
    assert ("newest: 7 checks passed" in out) == (not broke)
    assert ("torch: a test: an error" in out) == bool(broke)


def test_the_nightly_job_runs_it_and_each_python_of_the_tested_range():
    job = (ROOT / "ci/workflows/nightly.yml").read_text(encoding="utf-8")
    assert "run: ci/newest" in job
    assert 'python: ["3.10", "3.11", "3.12", "3.13"]' in job

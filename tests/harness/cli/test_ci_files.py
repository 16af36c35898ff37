"""``verify --junit --badge``, and what GitHub is told: also where there is no report."""

from __future__ import annotations

from pathlib import Path

import pytest
from junitparser import JUnitXml
from pair_contracts import verify, write

from kvparity.cli import ci_files
from kvparity.core.exit_codes import ExitCode


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path


def totals(file: Path) -> tuple[int, int, int]:
    xml = JUnitXml.fromfile(str(file))
    return xml.tests, xml.failures, xml.errors


def test_a_run_leaves_what_was_asked_for(github: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit, badge, summary = (github / each for each in ("j.xml", "b.svg", "summary.md"))
    summary.write_text("before\n")
    contract = write(github)
    contract.write_text(contract.read_text().replace("1.0e-5", "1.0e-20"))
    more = ("--junit", str(junit), "--badge", str(badge))
    assert verify(contract, github / "run", *more, "--json") == ExitCode.DIFFERS
    said = capsys.readouterr()
    tests, failures, errors = totals(junit)
    assert (failures > 0, errors) == (True, 0)
    assert tests > 8
    assert ">differs</text>" in badge.read_text()
    assert "::error title=kvparity pair%3A DIFFERS,file=pair.yaml,line=" in said.err
    assert "::error" not in said.out
    assert summary.read_text().startswith("before\n### kvparity: pair: DIFFERS")


@pytest.mark.parametrize("listens", [True, False])
def test_a_wrong_contract_is_an_error_at_its_line(
    github: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    listens: bool,
) -> None:
    junit, badge = github / "j.xml", github / "b.svg"
    if not listens:
        monkeypatch.setenv("GITHUB_ACTIONS", "false")
    contract = write(github)
    contract.write_text(contract.read_text().replace("batched", "batchd"))
    more = ("--junit", str(junit), "--badge", str(badge))
    assert verify(contract, github / "run", *more) == ExitCode.USAGE
    assert totals(junit) == (1, 0, 1)
    assert "batchd" in junit.read_text()
    assert ">error</text>" in badge.read_text()
    (row,) = [each for each in contract.read_text().splitlines() if "batchd" in each]
    line = contract.read_text().splitlines().index(row) + 1
    commands = [each for each in capsys.readouterr().err.splitlines() if each.startswith("::")]
    place = f"file=pair.yaml,line={line},col={row.index('batchd') + 1}"
    assert [each.partition("::")[2].split("::")[0] for each in commands] == (
        [f"error title=kvparity,{place}"] if listens else []
    )


def test_until_it_ends_a_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an earlier, green run must not stand where this one is killed."""
    junit = tmp_path / "j.xml"
    junit.write_text("<testsuites/>")
    seen = []

    def killed(*_: object) -> None:
        seen.append(junit.read_text())
        raise RuntimeError("no words")

    monkeypatch.setattr("kvparity.cli.verify._run", killed)
    assert verify(tmp_path / "x.yaml", tmp_path / "run", "--junit", str(junit)) == ExitCode.ERROR
    assert ci_files.UNFINISHED in seen[0]
    assert "RuntimeError: no words" in junit.read_text()
    assert totals(junit) == (1, 0, 1)


REFUSED = {
    "no JUnit": (["--junit", "CONTRACT"], "pair.yaml exists and is no JUnit XML"),
    "no SVG": (["--badge", "CONTRACT"], "pair.yaml exists and is no SVG"),
    "a folder": (["--junit", "."], "exists and is no JUnit XML"),
    "no such folder": (["--badge", "no/b.svg"], "there is no folder "),
    "one for both": (["--junit", "a", "--badge", "a"], "--badge a is --junit"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_nothing_else_is_written_over(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    contract = write(tmp_path)
    before = contract.read_text()
    options, words = REFUSED[kind]
    options = [str(contract) if each == "CONTRACT" else each for each in options]
    assert verify(contract, tmp_path / "run", *options) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert contract.read_text() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["pair.yaml"]


def test_what_cannot_be_written_at_last_is_an_error(
    github: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is said, the other file is written, and the exit code is no verdict."""
    from kvparity.cli.stop import StopError

    badge = github / "b.svg"
    (github / "summary.md").mkdir()

    def refuse(*_: object) -> str:
        raise StopError("--junit: No space left on device")

    monkeypatch.setattr("kvparity.report.junit.junit", refuse)
    more = ("--junit", str(github / "j.xml"), "--badge", str(badge))
    assert verify(write(github), github / "run", *more) == ExitCode.ERROR
    said = capsys.readouterr()
    assert "pair: HOLDS" in said.out
    assert "No space left on device" in said.err
    assert "the job summary is not written: " in said.err
    assert ">holds</text>" in badge.read_text()
    assert totals(github / "j.xml") == (1, 0, 1)

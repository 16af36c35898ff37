"""Whole verifications of the toy that end with errors, and no verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_documents import rendered
from toy import GeneratingToy, Toy
from toy_verification import BITS, NEAR, verify

from kvparity.core.exit_codes import ExitCode, of_verdict
from kvparity.run import worker
from kvparity.subjects.base import OracleError, SubjectError, UnsupportedError


@pytest.mark.parametrize("defect", ["raises", "exits", "missing-row"])
def test_a_broken_subject_is_an_error_and_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: str
) -> None:
    with pytest.raises(SubjectError):
        verify(tmp_path, monkeypatch, Toy(defect))
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.usefixtures("every_path")
def test_a_path_that_is_not_supported_is_an_error_and_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedError, match="path generate: the toy has no generate"):
        verify(tmp_path, monkeypatch, checks=[BITS | {"paths": ["generate"]}])
    other = tmp_path / "other"
    other.mkdir()
    report = verify(other, monkeypatch, GeneratingToy(), checks=[BITS | {"paths": ["generate"]}])
    assert [check["verdict"] for check in report["checks"]] == ["holds"]


def test_controls_that_end_the_process_are_errors() -> None:
    with pytest.raises(SubjectError, match="ended the process"):
        worker.guarded(lambda: (_ for _ in ()).throw(SystemExit(0)))


class Float32Only(Toy):
    """The toy, whose float64 twin is other people's code, and cannot."""

    def oracle(self, member: Any, ids: Any, rows: range) -> Any:
        raise OracleError("the toy does not compute in float64: 0x7f")


def test_without_an_oracle_accuracy_is_an_error_and_the_rest_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, Float32Only(), checks=[BITS, NEAR])
    assert [check["verdict"] for check in report["checks"]] == ["holds", "error"]
    assert "the toy does not compute in float64: 0x7f" in report["checks"][1]["reason"]
    assert {case["verdict"] for case in report["checks"][1]["cases"]} == {"error"}
    assert of_verdict(report["verdict"]) == ExitCode.ERROR
    lost = [entry for entry in report["unplanted"] if "float64: 0x7f" in entry["reason"]]
    assert {entry["relation"] for entry in lost} == {"accuracy"}
    assert "[ERROR]   near" in rendered(report)

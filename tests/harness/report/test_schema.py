"""Run folders of schema 1, where d had the other sign: read with their version, never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import Toy

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.report.run_dir import RunFolderError
from kvparity.report.schema import SCHEMA_VERSION
from kvparity.run import verify as verification
from kvparity.run import worker
from kvparity_contracts.loader import load

ACCURACY = {"name": "close", "relation": "accuracy", "limits": {"approx_kl0": 1e-9}}


def verify(tmp_path: Path, *, resume: bool = False) -> dict[str, Any]:
    file = tmp_path / "contract.yaml"
    file.write_text(
        json.dumps(
            toy.document(
                checks=[ACCURACY],
                controls=["wrong-input"],
                workloads=[{"name": "w", "prompt_tokens": [3], "generate": 3}],
            )
        )
    )
    return verification.verify(
        load(file), device="cpu", folder=tmp_path / "run", jobs=1, resume=resume,
        command="kvparity verify contract.yaml", progress=lambda *_: None,
    ).document()  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run under another sign: its first case has numbers that this one's d does not give."""
    monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: Toy("wrong"))
    monkeypatch.setattr(worker, "_subjects", {})
    report = verify(tmp_path)
    assert report["schema_version"] == SCHEMA_VERSION == 2
    assert (report["checks"][0]["cases"][0]["approx_kl0"]) > 0.01
    other = {"approx_kl0": 0.5, "clipfrac0": 0.125, "reason": "approx_kl0 0.5, over 1e-09"}
    rewrite(tmp_path / "run", **other)
    return tmp_path / "run"


def rewrite(folder: Path, **changes: Any) -> None:
    file = folder / "cases.jsonl"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(first) | changes), *rest]) + "\n")


def age(folder: Path) -> None:
    """What schema 1 wrote: no schema in the identity, neither roles nor tokens in a case."""
    head = folder / "identity.json"
    identity = json.loads(head.read_text())
    del identity["schema_version"]
    head.write_text(json.dumps(identity))
    file = folder / "cases.jsonl"
    cases = [json.loads(line) for line in file.read_text().splitlines()]
    for case in cases:
        del case["rollout"], case["trainer"], case["accuracy"]
    file.write_text("".join(json.dumps(case) + "\n" for case in cases))


def test_a_replay_reads_a_run_under_the_schema_that_it_has(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(folder), "c000"]) == ExitCode.DIFFERS
    assert "NOT the result" in capsys.readouterr().out  # under schema 2 these are other numbers
    age(folder)
    assert main(["replay", str(folder), "c000"]) == ExitCode.DIFFERS
    out = capsys.readouterr().out
    assert "the same result as the run recorded" in out
    assert "schema 1, with the other sign of d: approx_kl0 and clipfrac0 were not compared" in out
    assert main(["replay", str(folder), "c000", "--json"]) == ExitCode.DIFFERS
    found = json.loads(capsys.readouterr().out)
    assert (found["schema_version"], found["recorded_schema"]) == (2, 1)
    rewrite(folder, max_abs_dlogp=1e9)  # what both schemas measure alike is still held
    assert main(["replay", str(folder), "c000"]) == ExitCode.DIFFERS
    assert "NOT the result" in capsys.readouterr().out


def test_an_old_run_gets_no_new_lines(folder: Path) -> None:
    age(folder)
    before = {file.name: file.read_bytes() for file in folder.glob("*.json*")}
    with pytest.raises(RunFolderError, match=r"holds a run of schema 1, .*; use a new --run-dir$"):
        verify(folder.parent, resume=True)
    assert {file.name: file.read_bytes() for file in folder.glob("*.json*")} == before

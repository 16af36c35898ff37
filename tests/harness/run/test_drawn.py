"""Drawn schedules in a run: each is a case, stands in the evidence, and is run again from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import Toy
from toy_verification import verify

from kvparity.report.run_dir import RunFolderError
from kvparity.run.replay import replay
from kvparity_contracts.loader import load

CHECKS = [{"name": "bits", "relation": "invariance", "paths": ["random(4)"]}]
CHANGES = {
    "checks": CHECKS,
    "workloads": [{"name": "w", "prompt_tokens": [3, 17], "generate": 3}],
    "numerics": {"execution": "float32", "temperatures": [1.0]},
    "controls": ["stale-slot"],
}


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_draw_is_a_case_and_stands_in_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(tmp_path, monkeypatch, Toy("batch-dependent"), **CHANGES)
    cases = lines(tmp_path / "run" / "cases.jsonl")
    assert [each["path"] for each in cases] == [f"drawn({n})" for n in (1, 2, 3, 4)]
    ran = {each["path"]: each for each in lines(tmp_path / "run" / "paths.jsonl")}
    steps = {path: str(ran[path]["steps"]) for path in ran if "steps" in ran[path]}
    assert sorted(steps) == [f"drawn({n})" for n in (1, 2, 3, 4)]
    # The toy differs where several sequences share a step that computes compared rows.
    loaded = load(tmp_path / "contract.yaml")
    for case in cases:
        again = replay(loaded, tmp_path / "run", str(case["id"]), "cpu")
        assert again.same
        assert again.verdict == case["verdict"]
        # What stands in the evidence is a path of its own, with the same verdict.
        written = {**CHANGES, "checks": [CHECKS[0] | {"paths": [steps[str(case["path"])]]}]}
        folder = tmp_path / str(case["id"])
        folder.mkdir()
        alone = verify(folder, monkeypatch, Toy("batch-dependent"), **written)
        assert alone["checks"][0]["verdict"] == case["verdict"]
    assert {str(case["verdict"]) for case in cases} == {"holds", "differs"}


def test_strangers_were_in_the_earlier_use_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = "steps(0:0-1 1:0-1 / reset / 1:0-1 0:0-2 / 0:3*)"
    checks = [{"name": "bits", "relation": "invariance", "paths": [steps]}]
    load = {"name": "w", "prompt_tokens": [3], "generate": 2}
    report = verify(
        tmp_path, monkeypatch, Toy(), **CHANGES | {"checks": checks, "workloads": [load]}
    )
    assert report["checks"][0]["verdict"] == "holds"


def test_steps_that_are_not_what_is_drawn_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(tmp_path, monkeypatch, Toy(), **CHANGES)
    file, loaded = tmp_path / "run" / "paths.jsonl", load(tmp_path / "contract.yaml")
    case = str(lines(tmp_path / "run" / "cases.jsonl")[0]["id"])
    assert replay(loaded, tmp_path / "run", case, "cpu").same
    text = file.read_text()
    file.write_text(text.replace('"steps": "steps(', '"steps": "steps(slack 9 / '))
    with pytest.raises(RunFolderError, match=r"drawn\(1\) ran other steps than are drawn now"):
        replay(loaded, tmp_path / "run", case, "cpu")

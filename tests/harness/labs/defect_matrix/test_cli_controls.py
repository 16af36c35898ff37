"""``kvparity controls``: the list, and the exit codes of the matrix."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from located import located

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.labs.defect_matrix import locating, matrix, text
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.defects import DEFECTS, defects_of


def test_the_list_needs_no_torch() -> None:
    code = (
        "import sys; from kvparity.cli.main import main; main(['controls', '--json']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed = json.loads(done.stdout)
    assert [each["name"] for each in listed] == list(CONTROLS)
    first = listed[0]
    assert set(first) == {
        "name", "about", "source", "subjects", "needs", "must", "cause", "born", "expect",
        "defects",
    }  # fmt: skip
    assert (first["defects"], first["must"]) == ([13], ["invariance"])
    assert (first["cause"], first["born"]) == ("reduction order", "attention")


def test_the_list_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["controls"]) == ExitCode.HOLDS
    out = capsys.readouterr().out
    for control in CONTROLS.values():
        assert f"{control.name}: {control.about}" in out
    assert f"{len(CONTROLS)} controls; 47 of 51 defects expressed" in out


def test_the_defects() -> None:
    assert [each.number for each in DEFECTS] == list(range(1, 52))
    assert [each.number for each in DEFECTS if each.reason] == [29, 30, 48, 49]
    for each in DEFECTS:
        assert bool(each.controls) != bool(each.reason)
        assert "/" in each.source
        assert set(each.controls) <= set(CONTROLS)
        assert bool(each.relations) == bool(each.controls)
        for name in each.controls:
            assert each.number in defects_of(name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "--only", "stale-slots"], "did you mean stale-slot?"),
        (["--only", "stale-slot"], "are for --run"),
        (["--jobs", "2"], "are for --run"),
        (["--run", "--jobs", "0"], "--jobs 0: expected at least 1"),
        (["--run", "--device", "toaster"], "toaster"),
    ],
)
def test_bad_input(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["controls", *arguments]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_a_run_of_one_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--run", "--only", "raw-rollout-logprobs", "--jobs", "1", "--json"]
    assert main(["controls", *arguments, "--out", str(tmp_path)]) == ExitCode.HOLDS
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found == json.loads((tmp_path / "defect-zoo.json").read_text())
    assert found["ok"]
    assert found["controls"][0]["by"]["invariance"] == "caught"
    assert found["controls"][0]["by"]["liveness"] == "does not apply"
    assert "1 of 1 controls caught by all that must" in captured.err
    page = (tmp_path / "defect-zoo.md").read_text()
    assert "| `raw-rollout-logprobs` | 2 | x |" in page
    assert "| logprob semantics | sampler |" in page
    assert found["located"] == {"cause": 1, "of": 1, "first": 1, "of_first": 1}
    assert "the cause of 1 of 1 controls, the first operation of 1 of 1" in captured.err


def test_what_is_named_wrong_is_told_beside_what_is_true() -> None:
    right = locating.row(CONTROLS["stale-slot"], "plain", located("plain", "stale-slot"))
    wrong = locating.row(CONTROLS["narrow-cache"], "plain", located("plain", "stale-slot"))
    rows = list(text.rows(matrix.summary(
        [{"control": each["control"], "habitat": "plain", "workload": "edge", "path": "decode",
          "relation": "invariance", "found": "caught", "seen": "", "seconds": 0.0}
         for each in (right, wrong)], located=[right, wrong],
    )))  # fmt: skip
    assert [row[-2:] for row in rows] == [
        ["memory", "cache"], ["memory (is: store)", "cache"],
    ]  # fmt: skip
    assert matrix.score([right, wrong]) == {"cause": 1, "of": 2, "first": 2, "of_first": 2}


def test_a_missed_control_is_exit_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def blind(entries: list[Any], device: str) -> list[dict[str, Any]]:
        return [
            {"control": c.control, "habitat": c.fixture, "workload": c.workload or None,
             "relation": c.relation, "path": "", "found": "not caught", "seen": "", "seconds": 0.0}
            for c in entries
        ]  # fmt: skip

    monkeypatch.setattr(matrix, "compute", blind)
    arguments = ["--run", "--only", "stale-slot", "--jobs", "1"]
    assert main(["controls", *arguments]) == ExitCode.DIFFERS
    assert "MISSED  stale-slot: not caught by " in capsys.readouterr().out

"""The script that kills verifications finds what it looks for, and loses nothing here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import kill_runs
import pytest


def test_two_kills_lose_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert kill_runs.main(["--kills", "2", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "kill the command: 1" in said
    assert "kill a process of the subject: 1" in said
    assert "WRONG" not in said


def test_times_are_all_that_may_differ(tmp_path: Path) -> None:
    for name, seconds, ulps in (("a", 1.0, 3), ("b", 2.0, 3), ("c", 1.0, 4)):
        (tmp_path / name).mkdir()
        report = {"elapsed_s": seconds, "checks": [{"seconds": seconds, "max_ulp": ulps}]}
        (tmp_path / name / "run.json").write_text(json.dumps(report))
        line = json.dumps({"id": "c0", "seconds": seconds, "max_ulp": ulps}) + "\n"
        (tmp_path / name / "cases.jsonl").write_text(line)
        (tmp_path / name / "c0.safetensors").write_bytes(b"x")
    a, b, c = (kill_runs.left(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {"run.json", "cases.jsonl"}


def test_what_is_lost_or_unlike_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ended:
        """A verification that ends at once, and forgets what was finished."""

        returncode = 1

        def __init__(self, folder: Path, *more: str) -> None:
            self.run = folder / "run"
            self.run.mkdir(exist_ok=True)
            (self.run / "identity.json").write_text("{}")
            file = self.run / "cases.jsonl"
            began = file.exists()
            file.write_text('{"id": "c1"}\n' if began else '{"id": "c0"}\n')
            if began:
                (self.run / "run.json").write_text("{}")
            self.returncode = 1 if began else 3

        def communicate(self, timeout: float | None = None) -> tuple[str, str]:
            return "", ""

    monkeypatch.setattr(kill_runs, "begin", Ended)
    monkeypatch.setattr(kill_runs, "whole", lambda *_: ({"run.json": {"verdict": "holds"}}, 1.0))
    tally = kill_runs.Tally(kills=Counter({"kill the command": 1}))
    (tmp_path / "run").mkdir()
    kill_runs.torment(tmp_path, 1, 1, tally)
    assert tally.wrong[0] == "lost 1 of 1 finished lines"
    assert "run.json is not that of the run left alone" in tally.wrong

"""The script that kills verifications finds what it looks for, and loses nothing here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import kill_runs
import pytest


@pytest.mark.slow
def test_two_kills_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "kept.json"
    assert kill_runs.main(["--kills", "2", "--jobs", "1", "--out", str(file)]) == 0
    assert "WRONG" not in capsys.readouterr().out
    kept = json.loads(file.read_text())
    assert kept["command"].endswith("--kills 2 --at-once 0 --jobs 1 --seed 0")
    assert kept["kills"] == {"kill the command": 1, "kill a process of the subject": 1}
    assert sum(kept["moments"].values()) >= 2
    assert kept["runs_resumed_to_their_end"] >= 1
    assert kept["wrong"] == []


@pytest.mark.parametrize("kind", kill_runs.KINDS)
def test_another_exit_code_and_a_traceback_are_wrong(kind: str) -> None:
    class Ended:
        pid, returncode = 0, -2

        def send_signal(self, number: int) -> None:
            pass

        def kill(self) -> None:
            pass

        def communicate(self, timeout: float) -> tuple[str, str]:
            return "", "Exception ignored in: <module 'threading'>"

    tally = kill_runs.Tally()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kill_runs, "descendants", lambda pid: [2**22 + 1])  # nobody's
        kill_runs.kill(Ended(), kind, tally)
        assert [words.partition(":")[0] for words in tally.wrong] == [kind, kind]
        Ended.returncode = (*kill_runs.KINDS[kind],)[0]
        kill_runs.kill(Ended(), kind, tally)
    assert len(tally.wrong) == 3  # the words alone


def test_a_kill_comes_after_a_line_that_was_not_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed has lines from its first moment."""

    class Running:
        looks = 0

        def poll(self) -> None:
            self.looks += 1
            if self.looks == 20:
                with (tmp_path / "cases.jsonl").open("a") as file:
                    file.write("{}\n")

    (tmp_path / "cases.jsonl").write_text("{}\n{}\n")
    monkeypatch.setattr(kill_runs.random, "random", lambda: 0.9)
    process, tally = Running(), kill_runs.Tally()
    assert kill_runs.wait(process, tmp_path, 9e9, 3, tally)
    assert process.looks >= 20
    assert tally.moments == {"after the last line": 1}


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

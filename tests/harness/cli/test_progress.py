"""What is said while a command runs: finished cases, what runs, and nothing that sticks."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import toy
from toy import Toy

from kvparity.cli import say
from kvparity.cli.progress import Progress
from kvparity.run import verify, worker
from kvparity_contracts.loader import load


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress(every=3600) as quiet:
        quiet(1, 8, "case c001")
    assert capsys.readouterr().err == ""
    with say.listening() as said, Progress(every=0) as often:
        often(0, 0, "loading torch")
        often(3, 8, "case c003: invariance of decode over long, in mine.py:decode (95 s)")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "kvparity: running 0 s: loading torch",
        "kvparity: running 0 s: 3 of 8 cases are finished; case c003: invariance of decode over "
        "long, in mine.py:decode (95 s)",
    ]
    # It goes on: that is no part of how the command ended.
    assert json.loads(said.finished(3))["error"] == ""


def test_a_bar_on_a_terminal_starts_at_once_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress() as bar:
        bar(0, 0, "loading torch")
        assert "loading torch" in screen.getvalue()
        for done in range(3):
            bar(done, 8, f"case c00{done}")
        assert screen.getvalue().rpartition("\r")[2].strip().startswith("2/8 cases")
        assert screen.getvalue().rstrip().endswith("case c002")
    print("kvparity: interrupted", file=sys.stderr)
    last = screen.getvalue().split("\r")[-1]
    assert last == "kvparity: interrupted\n"


def test_what_is_counted_are_finished_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: Toy())
    monkeypatch.setattr(worker, "_subjects", {})
    file, folder = tmp_path / "c.yaml", tmp_path / "run"
    file.write_text(json.dumps(toy.document(controls=["stale-slot", "wrong-input"])))
    seen: list[tuple[int, int]] = []

    def told(done: int, total: int, what: str) -> None:
        lines = folder / "cases.jsonl"
        assert done == (lines.read_text().count("\n") if lines.exists() else 0)
        seen.append((done, total))

    verify.verify(
        load(file), device="cpu", folder=folder, jobs=1, resume=False, command="", progress=told
    ).document()
    total = seen[-1][1]
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert (folder / "cases.jsonl").read_text().count("\n") == total

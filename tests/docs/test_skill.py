"""The page for coding agents: its commands give what it shows, and its table is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import ROOT, fences, table_rows
from shell import missing, run

from kvparity.core.exit_codes import ExitCode

PAIRS = ROOT / "tests/harness/data/pairs.py"
CONTRACT = """\
version: 1
name: {name}
subject: {{kind: attention, prefill: "k.py:prefill", decode: "k.py:{decode}",
  heads: {{query: 2, kv: 1, dim: 4}}}}
numerics: {{execution: float32}}
workloads: [{{name: short, prompt_tokens: [2, 5], generate: 3}}]
checks: [{{name: same bits, relation: invariance, paths: [decode]}}]
controls: [stale-slot]
"""
PAGE = (ROOT / "docs/SKILL.md").read_text()


def test_its_commands_give_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k.py").write_text(PAIRS.read_text())
    for name, decode in (("mine", "decode"), ("changed", "decode_reversed")):
        (tmp_path / f"{name}.yaml").write_text(CONTRACT.format(name=name, decode=decode))
    (fence,) = [each for each in fences(PAGE) if each.language == "console"]
    for each in run(fence):
        assert missing(each.shown, each.printed) is None, each
        assert each.code == 0, each


def test_it_says_what_agents_read_first() -> None:
    head = re.match(r"---\nname: kvparity\ndescription: (.+)\n---\n", PAGE)
    assert head
    assert 100 < len(head[1]) < 1024, "what agents load of a skill before they need it"


def test_it_tells_every_exit_code() -> None:
    rows = table_rows(PAGE, "## How to read the verdict")
    assert {int(row[0]) for row in rows} == {int(code) for code in ExitCode}
    verdicts = {row[1].strip("`") for row in rows} - {""}
    assert verdicts == {"holds", "differs", "void", "error"}

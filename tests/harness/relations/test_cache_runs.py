"""Whole verifications with cache and liveness checks: verdict, report, evidence, replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy
from run_documents import rendered
from safetensors import safe_open
from toy import Toy

from kvparity.run import verify as verification
from kvparity.run import worker
from kvparity.run.replay import replay
from kvparity.subjects.base import UnsupportedError
from kvparity_contracts.loader import load

CACHE = {"name": "held", "relation": "cache", "paths": ["decode", "reset", "prefix(2)"]}
LIVE = {"name": "live", "relation": "liveness", "paths": ["decode", "batched"]}
NAMES = ["unwritten-slot", "baked-key"]
WORKLOADS = [{"name": "w", "prompt_tokens": [3, 20], "generate": 4}]


def verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *defects: str, **changes: Any
) -> dict[str, Any]:
    whole = {"checks": [CACHE, LIVE], "controls": NAMES, "workloads": WORKLOADS} | changes
    subject = Toy(*defects)
    monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: subject)
    monkeypatch.setattr(worker, "_subjects", {})
    file = tmp_path / "contract.yaml"
    file.write_text(json.dumps(toy.document(**whole)))
    return verification.verify(
        load(file),
        device="cpu",
        folder=tmp_path / "run",
        jobs=1,
        resume=False,
        command="kvparity verify contract.yaml",
        progress=lambda *_: None,
    ).document()


def test_caches_and_keys_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = verify(tmp_path, monkeypatch)
    assert [(c["verdict"], c["relation"]) for c in report["checks"]] == [
        ("holds", "cache"),
        ("holds", "liveness"),
    ]
    held, live = report["checks"]
    assert held["reason"] == "3 cases, stored bits are equal, and as written; 1 control caught"
    assert live["reason"] == (
        "2 cases, rows depend on what they see, and on nothing else; 1 control caught"
    )
    # No temperature: one case for each path.
    assert [(c["path"], c["reference"], c["temperature"]) for c in held["cases"]] == [
        ("decode", "prefill", None), ("reset", "prefill", None), ("prefix(2)", "prefill", None)
    ]  # fmt: skip
    assert [(c["path"], c["reference"]) for c in live["cases"]] == [
        ("decode", None),
        ("batched", None),
    ]
    assert held["cases"][0]["cache"] == {"layers": 1, "compared": 2 * 29, "differing": 0}
    assert live["cases"][0]["liveness"]["dead"] == []
    assert live["cases"][0]["tokens"] == live["cases"][0]["liveness"]["probes"] > 0
    text = rendered(report)
    assert "29 ok" in text
    assert [c["seen"] for c in report["controls"] if c["relation"] == "liveness"]
    observed = json.loads((tmp_path / "run/units.jsonl").read_text())["observed"]
    assert set(observed) == {"decode", "prefill", "reset", "prefix(2)", "batched"}


def test_a_wrong_cache_is_kept_as_evidence_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, "forgets-last")
    assert report["verdict"] == "differs"
    case = report["checks"][0]["cases"][0]
    assert case["verdict"] == "differs"
    assert case["cache"]["sides"] == ["written", "read"]
    first = case["first_divergence"]
    assert (first["sequence"], first["position"], first["layer"], first["part"]) == (
        "w/0", 5, 0, "k"
    )  # fmt: skip
    with safe_open(str(tmp_path / "run" / case["evidence"]), "pt") as file:
        index = json.loads(file.metadata()["index"])
        off = file.get_tensor("candidate.held") != file.get_tensor("candidate.written")
        rows = off.any(-1).any(0).nonzero().flatten().tolist()
        assert [index[row] for row in rows] == [[0, 5], [1, 22]]
        assert file.get_tensor("reference.is_held").all()
    text = rendered(report)
    assert "layer 0: k, element 0" in text
    assert "written" in text
    assert "2 of 29 positions are wrong" in text
    again = replay(load(tmp_path / "contract.yaml"), tmp_path / "run", case["id"], "cpu")
    assert again.same
    assert again.entry.verdict == "differs"
    assert again.row is None


def test_a_dead_key_differs_and_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, "blind-first")
    held, live = report["checks"]
    assert (held["verdict"], live["verdict"]) == ("holds", "differs")
    case = live["cases"][0]
    assert case["liveness"]["dead"] == [
        {"sequence": name, "row": row, "layer": 0, "head": 0, "position": 0}
        for name, row in (("w/0", 5), ("w/1", 22))
    ]
    assert case["first_divergence"] is None
    assert "2 of 11 changed keys are wrong" in rendered(report)
    again = replay(load(tmp_path / "contract.yaml"), tmp_path / "run", case["id"], "cpu")
    assert again.same


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"controls": ["unwritten-slot"]}, "no control of relation liveness was planted"),
        ({"controls": ["baked-key"]}, "no control of relation cache was planted"),
        ({"controls": [*NAMES, "stale-slot"], "checks": [LIVE]}, "was asked for and not planted"),
    ],
)
def test_a_check_without_a_control_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    report = verify(tmp_path, monkeypatch, **changes)
    assert report["verdict"] == "void"
    assert any(words in check["reason"] for check in report["checks"])


def test_what_cannot_be_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedError, match="cannot be inspected layer by layer"):
        verify(tmp_path, monkeypatch, "one-use", checks=[CACHE | {"paths": ["decode"]}, LIVE])


def test_caches_come_with_the_bits_of_the_same_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run of a path serves all relations, and looking at it changes none of its bits."""
    bits = {"name": "bits", "relation": "invariance", "paths": ["decode", "reset"]}
    calls = []
    session = Toy.session

    def counted(self: Toy, *arguments: Any) -> Any:
        calls.append(arguments)
        return session(self, *arguments)

    monkeypatch.setattr(Toy, "session", counted)
    report = verify(tmp_path, monkeypatch, checks=[bits, CACHE], controls=["retokenised", NAMES[0]])
    assert [c["verdict"] for c in report["checks"]] == ["holds", "holds"]
    # The rollout; prefill, decode, reset and prefix(2), looked at; two controls of two sides
    # each, and the slot that was found wrong once more, to show its bits.
    assert len(calls) == 1 + 4 + 2 * 2 + 1

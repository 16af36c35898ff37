"""Whole verifications of a pair with cases of order checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import naive_pair
import pytest
from kernel_case_documents import BLIND, document
from run_documents import rendered

from kvparity.plan.kernel_cases import KernelCase
from kvparity.relations.asked import Planted
from kvparity.relations.registry import RELATIONS
from kvparity.run import verify as verification
from kvparity.run import worker
from kvparity.run.replay import replay
from kvparity_contracts import load


def verify(folder: Path, *, resume: bool = False, **changes: Any) -> dict[str, Any]:
    file = folder / "contract.yaml"
    file.write_text(json.dumps(document(**changes)))
    return verification.verify(
        load(file),
        device="cpu",
        folder=folder / "run",
        jobs=1,
        resume=resume,
        command="kvparity verify contract.yaml",
        progress=lambda done, total, what: None,
    ).document()


def naive(**names: str) -> dict[str, Any]:
    """The naive pair as a subject."""
    functions = {"prefill": "prefill", "decode": "decode"} | names
    file = Path(naive_pair.__file__)
    heads = {"query": 4, "kv": 1, "dim": 16}
    return {"kind": "attention", "heads": heads} | {
        side: f"{file}:{name}" for side, name in functions.items()
    }


@pytest.mark.slow
def test_a_pair_with_one_order_holds(tmp_path: Path) -> None:
    seen = verify(tmp_path, subject=naive())
    (check,) = seen["checks"]
    assert (seen["verdict"], check["verdict"]) == ("holds", "holds")
    assert check["reason"] == "2 cases, no difference of order was found; 2 controls caught"
    assert [c["order"]["keys"] for c in check["cases"]] == [20, 66]
    assert check["omitted"] == []
    planted = {(c["name"], c["relation"], c["caught"]) for c in seen["controls"]}
    assert planted == {("other-tile", "order", True), ("ragged-split", "order", True)}
    assert all(c["seen"].startswith("66 keys: different-order: ") for c in seen["controls"])
    text = rendered(seen)
    assert "    20 keys, float32: consistent: 5 of 5 parts are the same" in text
    assert "first:" not in text


def test_a_pair_of_two_orders_differs_and_can_be_replayed(tmp_path: Path) -> None:
    checks = [{"name": "order", "relation": "order", "keys": [20]}]
    seen = verify(tmp_path, subject=naive(decode="decode_backwards"), checks=checks)
    (check,) = seen["checks"]
    assert (check["verdict"], check["reason"]) == ("differs", "1 of 1 cases differ")
    assert check["cases"][0]["order"]["verdict"] == "different-order"
    assert "    20 keys, float32: different-order: key order: " in rendered(seen)
    again = replay(load(tmp_path / "contract.yaml"), tmp_path / "run", "c000", "cpu")
    assert again.same
    assert again.row is None
    assert again.entry.verdict == "differs"


def test_without_a_log_sum_exp_one_control_is_left(tmp_path: Path) -> None:
    alone = naive(prefill="prefill_alone", decode="decode_alone")
    seen = verify(tmp_path, subject=alone)
    assert seen["verdict"] == "holds"
    assert [(c["name"], c["caught"]) for c in seen["controls"]] == [("ragged-split", True)]
    (left,) = (e for e in seen["unplanted"] if e["control"] == "other-tile")
    assert (left["relation"], "built from the LSE" in left["reason"]) == ("order", True)


def test_no_more_keys_than_a_tile_are_void(tmp_path: Path) -> None:
    checks = [{"name": "order", "relation": "order", "keys": [20]}]
    (check,) = verify(tmp_path, subject=naive(), checks=checks)["checks"]
    assert (check["verdict"], check["reason"]) == (
        "void",
        "no control of relation order was planted",
    )


def test_a_void_case_is_told_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relation = RELATIONS["audit"]
    monkeypatch.setattr(relation, "look", lambda *_: BLIND, raising=True)
    monkeypatch.setattr(relation, "control", lambda *_: Planted(True, "seen"), raising=True)
    checks = [{"name": "audit", "relation": "audit", "architectures": ["sm_90"]}]
    seen = verify(tmp_path, checks=checks)
    (check,) = seen["checks"]
    assert (check["verdict"], check["reason"]) == ("void", "sm_90: unknown: so")
    assert "    sm_90, float32: unknown: so" in rendered(seen)
    assert {(c["name"], c["relation"]) for c in seen["controls"]} == {
        ("other-tile", "audit"),
        ("other-warps", "audit"),
    }


@pytest.mark.slow
def test_what_is_finished_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = verify(tmp_path, subject=naive())
    for name in ("cases", "controls"):
        file = tmp_path / "run" / f"{name}.jsonl"
        file.write_text(file.read_text().splitlines()[0] + "\n")
    ran: list[str] = []
    for name in ("do_kernel_case", "do_kernel_control"):
        real = getattr(worker, name)

        def spy(job: Any, task: Any, real: Any = real) -> Any:
            ran.append(task.id if isinstance(task, KernelCase) else task.control)
            return real(job, task)

        monkeypatch.setattr(worker, name, spy)
    resumed = verify(tmp_path, resume=True, subject=naive())
    assert sorted(ran) == ["c001", "other-tile"]
    assert resumed["controls"] == whole["controls"]
    assert resumed["verdict"] == "holds"

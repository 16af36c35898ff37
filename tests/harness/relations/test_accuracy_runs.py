"""Whole verifications with an accuracy check: what a case tells, and what is kept of it."""

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
from kvparity_contracts.loader import load


def verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, *defects: str
) -> dict[str, Any]:
    monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: Toy(*defects))
    monkeypatch.setattr(worker, "_subjects", {})
    check = {"name": "close", "relation": "accuracy", "limits": {"max_abs_dlogp": limit}}
    workloads = [{"name": "w", "prompt_tokens": [3, 6], "generate": 3}]
    file = tmp_path / "contract.yaml"
    file.write_text(
        json.dumps(toy.document(checks=[check], controls=["wrong-input"], workloads=workloads))
    )
    return verification.verify(
        load(file), device="cpu", folder=tmp_path / "run", jobs=1, resume=False,
        command="kvparity verify contract.yaml", progress=lambda *_: None,
    ).document()  # fmt: skip


@pytest.mark.parametrize(("defects", "verdict"), [((), "holds"), (("wrong",), "differs")])
def test_what_was_compared_is_kept_whatever_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defects: tuple[str, ...], verdict: str
) -> None:
    report = verify(tmp_path, monkeypatch, 1e-5, *defects)
    (check,) = report["checks"]
    assert check["verdict"] == verdict
    assert len(check["cases"]) == 2  # one for each temperature
    for column, case in enumerate(check["cases"]):
        assert case["evidence"] == f"accuracy/{case['id']}.safetensors"
        with safe_open(str(tmp_path / "run" / case["evidence"]), "pt") as file:
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            index = json.loads(file.metadata()["index"])
        assert index == [[0, 2], [0, 3], [0, 4], [1, 5], [1, 6], [1, 7]]
        assert kept["column"].tolist() == [column] * 6
        errors = (kept["value"].double() - kept["exact"]).abs()
        assert float(errors.max()) == case["max_abs_dlogp"] == case["accuracy"]["worst"]["error"]
        worst = case["accuracy"]["worst"]
        sequence, row = index[int(errors.argmax())]
        assert (worst["sequence"], worst["position"]) == (f"w/{sequence}", row + 1)
    text = rendered(report)
    assert f"max_abs_dlogp {case_of(report)['max_abs_dlogp']:.3g} of 1e-05 allowed" in text
    assert "worst token" in text
    # A control shows what it measured beside what it broke.
    (control,) = report["controls"]
    assert control["seen"].startswith("differs: over the limit: max_abs_dlogp ")
    assert control["seen"].endswith(" of 1e-05 allowed")


def case_of(report: dict[str, Any]) -> dict[str, Any]:
    cases: list[dict[str, Any]] = report["checks"][0]["cases"]
    return max(cases, key=lambda case: case["max_abs_dlogp"])

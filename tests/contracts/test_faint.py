"""The linter says beforehand which limits are too wide for a fault that both kernels share."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kvparity_contracts import lint, load
from kvparity_contracts.faint import PLAIN, between


def found(tmp_path: Path, limits: Any, *more: dict[str, Any], **subject: Any) -> list[str]:
    """Warnings about limits, without their place."""
    (tmp_path / "pair.py").write_text("def prefill(): ...\ndef decode(): ...\n")
    pair = {"kind": "attention", "prefill": "pair.py:prefill", "decode": "pair.py:decode"}
    whole = {
        "version": 1,
        "name": "faint",
        "subject": pair
        | {"heads": {"query": 8, "kv": 2, "dim": 64}, "queries": "normal"}
        | subject,
        "numerics": {"execution": list(limits) if "max_abs" not in limits else "bfloat16"},
        "workloads": [{"name": "w", "prompt_tokens": [62, 700], "generate": 4}],
        "checks": [
            {"name": "bits", "relation": "invariance", "paths": ["decode"]},
            {"name": "near", "relation": "accuracy", "limits": limits},
            *more,
        ],
    }
    file = tmp_path / "contract.yaml"
    file.write_text(json.dumps(whole))
    return [f"{each.key}: {each.message}" for each in lint(load(file)) if "limits" in each.key]


def test_a_limit_that_is_wider_than_the_fault_is_told_with_one_that_is_not(tmp_path: Path) -> None:
    assert found(tmp_path, {"max_abs": 0.02}, window=512) == [
        "checks[1].limits.max_abs: 0.02 may not see window-one-long, which moves a row by about "
        "0.01; rounding to bfloat16 takes up to 0.006: a limit of 0.008 shows it"
    ]
    assert found(tmp_path, {"max_abs": 0.008}, window=512) == []
    assert found(tmp_path, {"max_abs": 0.02}, window=128) == []
    edge = 6 / 512  # what one key more moves a row by: at that limit it is not told
    assert len(found(tmp_path, {"max_abs": edge}, window=512)) == 1
    assert found(tmp_path, {"max_abs": math.nextafter(edge, 0)}, window=512) == []
    assert found(tmp_path, {"max_abs": 0.02}) == []  # neither window nor softcap
    # Data as trained models have them show more, and round more.
    assert found(tmp_path, {"max_abs": 0.02}, window=512, queries="mixed") == []
    (told,) = found(tmp_path, {"max_abs": 0.05}, window=512, queries="mixed")
    assert told.endswith(
        "by about 0.04; rounding to bfloat16 takes up to 0.01: a limit of 0.02 shows it"
    )


def test_where_rounding_is_as_large_another_format_is_asked_for(tmp_path: Path) -> None:
    (told,) = found(tmp_path, {"max_abs": 0.02}, softcap=50.0)
    assert told.endswith(
        "rounding to bfloat16 takes up to 0.006: no limit shows it there; add float32"
    )
    limits = {"float32": {"max_abs": 1e-5}, "bfloat16": {"max_abs": 0.02}}
    (told,) = found(tmp_path, limits, softcap=50.0)
    assert told.startswith("checks[1].limits.bfloat16.max_abs: 0.02 may not see softcap-ignored")
    assert found(tmp_path, {"max_abs": 0.02}, softcap=50.0, queries="sharp") == []


@pytest.mark.parametrize(("queries", "moved"), [("normal", 13), ("sharp", 2000), ("mixed", 2000)])
def test_a_limit_of_what_an_ignored_cap_moves_a_row_by_is_told(
    tmp_path: Path, queries: str, moved: float
) -> None:
    edge = moved / 50.0**2
    assert len(found(tmp_path, {"max_abs": edge}, softcap=50.0, queries=queries)) == 1
    below = math.nextafter(edge, 0)
    assert found(tmp_path, {"max_abs": below}, softcap=50.0, queries=queries) == []


def test_liveness_sees_a_window_whatever_the_limit(tmp_path: Path) -> None:
    live = {"name": "live", "relation": "liveness"}
    assert found(tmp_path, {"max_abs": 0.02}, live, window=512) == []
    assert len(found(tmp_path, {"max_abs": 0.02}, live, window=512, softcap=50.0)) == 1


@pytest.mark.parametrize("fault", [0.0074, 0.0076, 0.0117, 0.05, 0.5])
def test_a_limit_that_is_named_lies_between(fault: float) -> None:
    limit = between(fault, PLAIN["bfloat16"])
    assert (limit is None) == (fault < 0.0075)
    assert limit is None or PLAIN["bfloat16"] < limit < fault

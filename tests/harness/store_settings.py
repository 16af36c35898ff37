"""Settings over the pairs of these tests, with a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import toy

from kvparity.plan.cases import Case, make
from kvparity.record.path_run import Setting
from kvparity.relations.bits_and_limits import Comparison
from kvparity.run.unit import run_unit
from kvparity.subjects.pair.subject import build
from kvparity_contracts.subjects import Attention

HERE = Path(__file__).parent
WIDE = {
    "prefill": "wide_pair.py:prefill",
    "decode": "wide_pair.py:decode",
    "heads": {"query": 4, "kv": 2, "dim": 16},
}
EVERY = [
    "decode", "chunked(5)", "batched", "permuted", "mixed", "uncached", "streamed(7)", "reset",
    "prefix(16)",
]  # fmt: skip


def setting(
    pair: dict[str, Any],
    kv_cache: str = "float32",
    paths: list[str] | None = None,
    checks: list[dict[str, Any]] | None = None,
    lengths: list[int] | None = None,
    execution: str = "float32",
    **more: Any,
) -> Setting:
    document = {"kind": "attention", **pair, **more}
    contract = toy.contract(
        subject=document,
        numerics={"execution": execution, "kv_cache": kv_cache},
        workloads=[{"name": "w", "prompt_tokens": lengths or [3, 18], "generate": 3}],
        checks=checks
        or [
            {"name": "bits", "relation": "invariance", "paths": paths or EVERY},
            {"name": "near", "relation": "accuracy", "limits": {"max_abs": 1e-5}},
        ],
    )
    subject = build(
        Attention.model_validate(document),
        execution=execution,
        kv_cache=kv_cache,
        device=torch.device("cpu"),
        seed=1,
        base=HERE,
    )
    return Setting(contract, subject)


def results(found: Setting) -> dict[str, Comparison]:
    seen: dict[str, Comparison] = {}

    def emit(case: Case, result: Comparison, *_: Any) -> None:
        seen[f"{case.path} {case.relation}"] = result

    for unit in make(found.contract).units:
        run_unit(found, unit, tokens=None, done=frozenset(), emit=emit)
    return seen


def outcomes(found: Setting) -> dict[str, str]:
    return {name: result.outcome for name, result in results(found).items()}

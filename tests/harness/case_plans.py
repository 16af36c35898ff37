"""Plans of small contracts, and what is planted where."""

from __future__ import annotations

from typing import Any

import toy

from kvparity.plan.cases import Work, make

ATTENTION = {
    "subject": {
        "kind": "attention",
        "prefill": "kernels:prefill",
        "decode": "kernels:decode",
        "heads": {"query": 4, "kv": 2, "dim": 16},
    },
    "numerics": {"execution": "float32"},
    "workloads": [{"name": "short", "prompt_tokens": [3, 17], "generate": 4}],
    "checks": [
        {"name": "bits", "relation": "invariance", "paths": ["decode", "batched"]},
        {"name": "near", "relation": "accuracy", "limits": {"max_abs": 1e-5}},
    ],
}


def bits(*paths: str, **more: Any) -> dict[str, Any]:
    return {"name": "bits", "relation": "invariance", "paths": list(paths)} | more


def workloads(*entries: tuple[str, list[int], int]) -> list[dict[str, Any]]:
    return [{"name": n, "prompt_tokens": lengths, "generate": g} for n, lengths, g in entries]


def plan(**changes: Any) -> Work:
    return make(toy.contract(**changes))


ORDER = {"name": "order", "relation": "order", "keys": [300, 17, 65]}
AUDIT = {"name": "audit", "relation": "audit", "architectures": ["sm_90", "sm_80"]}

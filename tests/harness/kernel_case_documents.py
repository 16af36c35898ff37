"""A contract of a pair with an order check, and what it takes."""

from __future__ import annotations

from typing import Any

from kvparity.relations import bits_and_limits
from kvparity.relations.audit.line import AuditDetails

BLIND = bits_and_limits.Comparison(
    "void",
    "unknown: so",
    details=AuditDetails(architecture="sm_90", verdict="unknown", pairs=()),
)
PAIR = {
    "kind": "attention",
    "prefill": "kvparity_kernels.attention:prefill",
    "decode": "kvparity_kernels.attention:decode",
    "heads": {"query": 4, "kv": 2, "dim": 16},
}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "kernels",
        "subject": PAIR,
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [3], "generate": 2}],
        "checks": [{"name": "order", "relation": "order", "keys": [20, 66]}],
    } | changes

"""Where a case of a report looked, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTED = {"cache": "positions", "liveness": "changed keys", "trace": "rows"}
"""What the cases of a relation count, where it is not tokens."""


def place(case: Mapping[str, Any]) -> str:
    """The path and workload of a case; or its number of keys; or the GPU it was compiled for."""
    if "order" in case:
        return f"{case['order']['keys']} keys"
    if "audit" in case:
        return str(case["audit"]["architecture"])
    return f"{case['path']} over {case['workload']}"

"""Where a case of a report looked, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvparity.plan.results import CaseLine
from kvparity.relations.kernel_lines import AuditDetails, OrderDetails

COUNTED = {"cache": "positions", "liveness": "changed keys", "trace": "rows"}
"""What the cases of a relation count, where it is not tokens."""


def place(case: CaseLine) -> str:
    """The path and workload of a case; or its number of keys; or the GPU it was compiled for."""
    if isinstance(case.details, OrderDetails):
        return f"{case.details.keys} keys"
    if isinstance(case.details, AuditDetails):
        return case.details.architecture
    return f"{case.path} over {case.workload}"


def place_in(case: Mapping[str, Any]) -> str:
    """The same of a case of a document."""
    if "order" in case:
        return f"{case['order']['keys']} keys"
    if "audit" in case:
        return str(case["audit"]["architecture"])
    return f"{case['path']} over {case['workload']}"

"""Whether a recorded verdict agrees with what the same line counts and measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

Entry = Mapping[str, Any]
_WORDS = ("holds", "differs", "void", "error")
_COUNTS = ("tokens", "differing_tokens", "differing_rows")
_KERNELS = ("order", "audit")
_FAULTS = {"cache": ("differing",), "liveness": ("dead", "wrongly_alive"), "trace": ("broken",)}
"""What the details of a relation list where it is broken."""
_BROKEN_ORDERS = ("different-order", "undeclared-order", "same-order-different-bits", "not-a-tree")


def contradiction(line: Entry, limits: Mapping[str, float]) -> str | None:
    """Why the verdict of a case's line cannot be, or None. ``limits``: of an accuracy case."""
    verdict, relation = line.get("verdict"), line.get("relation")
    if verdict not in _WORDS:
        return f"its verdict is {verdict!r}"
    for name in _COUNTS:
        count = line.get(name)
        if type(count) is not int or count < 0:
            return f"{name} is {count!r}, expected a count"
    details = line.get(str(relation))
    if details is not None and not isinstance(details, dict):
        return f"{relation} is {details!r}, expected a mapping"
    if verdict == "holds":
        return _why_not_holds(line, details or {}, limits)
    if verdict == "differs":
        return _why_not_differs(line, details or {}, limits)
    return None


def _why_not_holds(line: Entry, details: Entry, limits: Mapping[str, float]) -> str | None:
    relation = line["relation"]
    if relation in _KERNELS:
        return _kernels_differ(relation, details)
    if not line["tokens"]:
        return "it holds, and nothing was compared"
    for name in ("differing_tokens", "differing_rows"):
        if line[name]:
            return f"it holds, and {name} is {line[name]}"
    if details.get("faults"):
        return f"it holds, and faults is {details['faults']!r}"
    if line.get("first_divergence") is not None:
        return "it holds, and has a first divergence"
    for name in _FAULTS.get(relation, ()):
        if details.get(name):
            return f"it holds, and {name} is {details[name]!r}"
    if relation == "invariance" and line.get("max_ulp") != 0:
        return f"it holds, and max_ulp is {line.get('max_ulp')!r}"
    if relation == "accuracy":
        over = _over(line, limits)
        if over or not limits:
            return f"it holds, and {', '.join(over) or 'no measure'} is not within its limit"
        if "evidence" not in line:
            return "it holds, and names no file in accuracy/"
    return None


def _why_not_differs(line: Entry, details: Entry, limits: Mapping[str, float]) -> str | None:
    relation = line["relation"]
    if relation in _KERNELS:
        return None  # an order may differ in what its random calls gave alone
    seen, faults = line["differing_tokens"] + line["differing_rows"], details.get("faults")
    if relation == "accuracy":
        found = seen or faults or _over(line, limits)
        return None if found else "it differs, and is within every limit"
    if not seen and not faults:
        return "it differs, and counts nothing that does"
    if relation == "invariance" and seen and line.get("first_divergence") is None:
        return "it differs, and has no first divergence"
    if relation in ("invariance", "cache") and "evidence" not in line:
        return "it differs, and names no file in failures/"
    return None


def _kernels_differ(relation: str, details: Entry) -> str | None:
    found = details.get("verdict")
    if relation == "audit":
        return None if found == "same" else f"it holds, and the audit found {found!r}"
    return f"it holds, and the order is {found!r}" if found in (None, *_BROKEN_ORDERS) else None


def _over(line: Entry, limits: Mapping[str, float]) -> list[str]:
    """The measures that are missing, not a number, or over their limit."""
    return [name for name, limit in limits.items() if not _within(line.get(name), limit)]


def _within(measured: object, limit: float) -> bool:
    return _finite(measured) and measured <= limit


def _finite(x: object) -> TypeGuard[float]:
    """A number as JSON has it: no bool, no text, no NaN."""
    return type(x) in (int, float) and math.isfinite(x)  # type: ignore[arg-type] # a float by now


def control_contradiction(line: Entry) -> str | None:
    """Why a control's line cannot be, or None."""
    caught, seen, expected = line.get("caught"), line.get("seen"), line.get("expected")
    if type(caught) is not bool or not isinstance(seen, str):
        return f"caught is {caught!r} and seen is {seen!r}"
    if expected not in ("differs", "void"):
        return f"expected is {expected!r}"
    reach = line.get("reach", [])
    if not isinstance(reach, list) or not all(map(_reaches, reach)):
        return "its reach does not follow from what was measured"
    if reach and caught != all(row["seen"] for row in reach):
        return f"caught is {caught}, and its reach says otherwise"
    if not caught:
        return None
    if expected == "void" and not seen.startswith("void: "):
        return f"it was caught as void, and what was seen is {seen!r}"
    if expected == "differs" and seen.startswith(("holds: ", "void: ", "without the defect")):
        return f"it was caught as a difference, and what was seen is {seen!r}"
    return None


def _reaches(row: object) -> bool:
    """Whether a row of a control's reach says of its own numbers what follows from them."""
    if not isinstance(row, dict):
        return False
    measured, limit, rounding = row.get("measured"), row.get("limit"), row.get("rounding")
    if not (_finite(measured) and _finite(limit) and _finite(rounding)):
        return False
    return row.get("seen") is (measured > limit)

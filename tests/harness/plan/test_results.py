"""What is said of a control: each contradiction by itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError
from run_documents import control

from kvparity.core.values import sentence
from kvparity.plan.results import ControlLine

REACH = {
    "check": "near", "dtype": "float32", "kv_cache": "float32", "limit": 1.0, "measured": 2.0,
    "rounding": 0.1, "seen": True,
}  # fmt: skip
WHOLE = control(relation="accuracy", reach=[REACH])


def row(**more: Any) -> dict[str, Any]:
    return {"reach": [REACH, REACH | more]}


def test_a_control_is_written_as_it_is_read() -> None:
    for found in (WHOLE, control(), control(caught=False), control(expected="void", seen="void: ")):
        assert ControlLine.model_validate(found).document() == found


CONTROLS: dict[str, tuple[dict[str, Any], str]] = {
    "caught in words": ({"caught": "yes"}, "caught is 'yes'"),
    "seen in numbers": ({"seen": 3}, "seen is 3"),
    "another expectation": ({"expected": "holds"}, "expected is 'holds'"),
    "caught by what holds": ({"seen": "holds: every bit is equal"}, "caught as a difference"),
    "caught by what is void": ({"seen": "void: no token"}, "caught as a difference"),
    "caught without it": ({"seen": "without the defect: differs"}, "caught as a difference"),
    "caught as void by a difference": ({"expected": "void"}, "it was caught as void"),
    "a reach that is no list": ({"reach": {}}, "reach is {}, and should be a valid list"),
    "a row that is no mapping": ({"reach": [3]}, "reach[0] is 3, and should be a valid mapping"),
    "a fault at its limit": (row(measured=1.0), "reach[1]: it does not follow"),
    "a fault over it unseen": (row(seen=False), "reach[1]: it does not follow"),
    "a measure that is nan": (row(measured=math.nan), "reach[1].measured is nan"),
    "a measure without end": (row(measured=math.inf), "reach[1].measured is inf"),
    "a limit that is true": (row(limit=True), "reach[1].limit is True"),
    "no rounding": (row(rounding=None), "reach[1].rounding is None"),
    "one row of two unseen": (row(measured=1.0, seen=False), "its reach says otherwise"),
    "all seen and not caught": ({"caught": False}, "its reach says otherwise"),
    "a measure in words": ({"measured": {"max_abs": "big"}}, "measured.max_abs: 'big' is no num"),
    "a format too few": ({"numerics": {"kv_cache": "b"}}, "numerics.execution is missing"),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_that_cannot_be_is_told(name: str) -> None:
    change, words = CONTROLS[name]
    with pytest.raises(ValidationError) as error:
        ControlLine.model_validate(WHOLE | change)
    assert words in sentence(error.value)

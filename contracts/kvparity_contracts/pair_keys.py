"""Types of what a contract declares of a pair's scores."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from kvparity_contracts.base import Fault, as_tuple, refuse

TWO = "two, the smaller one first"


def _two(value: object) -> object:
    found = as_tuple(value)
    if isinstance(found, tuple) and len(found) != 2:
        refuse([Fault((), f"found {len(found)} numbers", TWO)])
    return found


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        refuse([Fault((), f"found {values[0]:g} before {values[1]:g}", TWO)])
    return values


Range = Annotated[
    tuple[float, float],
    BeforeValidator(_two),
    AfterValidator(_ascending),
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
]
"""The least and the largest of numbers that are drawn."""

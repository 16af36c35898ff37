"""Types of what a contract declares of a pair's scores."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from kvparity_contracts.base import Fault, Model, as_tuple, refuse

TWO = "two, the smaller one first"


def _two(value: object, expected: str = TWO) -> object:
    found = as_tuple(value)
    if isinstance(found, tuple) and len(found) != 2:
        refuse([Fault((), f"found {len(found)} numbers", expected)])
    return found


_Both = TypeVar("_Both", tuple[int, int], tuple[float, float])


def _ascending(values: _Both) -> _Both:
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


def _bounded(sides: tuple[int, int]) -> tuple[int, int]:
    if sides == (-1, -1):
        refuse([Fault((), "found -1 on both sides, which hides nothing", "no window_size")])
    return sides


_Side = Annotated[int, Field(ge=-1, le=2**20)]
WindowSides = Annotated[
    tuple[_Side, _Side],
    BeforeValidator(lambda value: _two(value, "two, before and behind a row's own")),
    AfterValidator(_bounded),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "integer", "minimum": -1, "maximum": 2**20},
            "minItems": 2,
            "maxItems": 2,
        }
    ),
]
"""So many keys before and behind a row's own; -1: all."""


_Keys = Annotated[int, Field(ge=1, le=2**20)]
KeyCounts = Annotated[
    tuple[_Keys, _Keys],
    BeforeValidator(_two),
    AfterValidator(_ascending),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 2**20},
            "minItems": 2,
            "maxItems": 2,
        }
    ),
]
"""The fewest and the most keys of a sequence."""


class AlibiBias(Model):
    """Scores fall with the distance of a key from the row's own, in a straight line."""

    TAG: ClassVar[str] = "alibi"

    kind: Literal["alibi"]
    """alibi: slopes between 2^-8 and 1, one for each query head, passed as `alibi_slopes`."""


class RelativeBias(Model):
    """A number for each query head and distance of a key from the row's own is added to scores."""

    TAG: ClassVar[str] = "relative"

    kind: Literal["relative"]
    """relative: normals of standard deviation 2, passed as `bias`."""
    distances: Annotated[int, Field(ge=2, le=2**20)]
    """How many distances have a number of their own: the last one is of all farther keys."""


Bias = Annotated[AlibiBias | RelativeBias, Field(discriminator="kind")]
"""What is added to scores by head and distance."""

"""Values that are written as JSON and read again: by one model, which defines what is valid."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)

Plain = TypeVar("Plain")
Count = Annotated[int, Field(ge=0)]
Counts = dict[str, Count]
"""By name."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LIST = Field(strict=False)
"""JSON has lists where a frozen value has tuples; what they hold stays strict."""
Texts = Annotated[tuple[str, ...], LIST]
Digest = Annotated[str, Field(pattern="^0x[0-9a-f]{16}$")]
Hex = Annotated[str, Field(pattern="^0x[0-9a-f]+$")]


def plain(value: Plain) -> Plain | str:
    """JSON has no NaN and no Inf: their names instead."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: object) -> object:
    found = plain(value)
    if type(found) in (int, float) or found in ("nan", "inf", "-inf"):
        return found
    raise ValueError(f"{reprlib.repr(value)} is no number, nor nan, inf or -inf")


def _listed(value: object) -> object:
    """As JSON has it: lists, and no mapping that is another's."""
    if isinstance(value, Mapping):
        return {key: _listed(inner) for key, inner in value.items()}
    return [_listed(each) for each in value] if isinstance(value, (list, tuple)) else value


Json = Annotated[dict[str, JsonValue], BeforeValidator(_listed)]
"""An object whose keys no model fixes."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = Annotated[
    Finite | Annotated[str, Field(pattern="^(nan|-?inf)$")], BeforeValidator(_number)
]
"""A float; one that is not finite by its name."""


class Value(BaseModel):
    """Frozen; no number in words, no truth as a number, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def document(self) -> Json:
        """As JSON has it, in the order of the fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class RunLine(Value):
    """A line of ``file``."""

    file: ClassVar[str]


def sentence(error: ValidationError) -> str:
    """The first thing that is wrong, in JSON's words."""
    first = error.errors(include_url=False)[0]
    names = (f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"])
    where = "".join(names).removeprefix(".")
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "extra_forbidden":
        return f"{where} is not a field of this line"
    if first["type"] == "value_error":
        return ": ".join(part for part in (where, str(first["ctx"]["error"])) if part)
    wanted = first["msg"].partition(" should ")[2]
    wanted = wanted.replace("tuple", "list").replace("dictionary", "mapping")
    return f"{where} is {reprlib.repr(first['input'])}, and should {wanted}"

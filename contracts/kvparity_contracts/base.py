"""What every model of a contract shares: frozen, no unknown keys, faults in plain words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from kvparity_contracts.json_types import JsonValue

DType = Literal["float32", "float16", "bfloat16"]
"""The number formats that weights, activations and caches may have."""

KeyPath = tuple[str | int, ...]
"""Where a value lies: keys of mappings and indices of lists, from the top."""

FAULT = "kvparity_fault"
Item = TypeVar("Item")


class Model(BaseModel):
    """Data of a contract. Immutable; an unknown key is an error; nothing is coerced."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(self.own_faults())
        return self

    def own_faults(self) -> Iterator[Fault]:
        """What is wrong with it, whatever else the contract holds."""
        return iter(())


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where (relative to the model that says so), what, and what instead.

    ``message`` says what was found; ``expected`` and ``suggestion`` may be empty.
    """

    at: KeyPath
    message: str
    expected: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        text = self.message
        if self.expected:
            text += f", expected {self.expected}"
        if self.suggestion:
            text += f" (did you mean {self.suggestion}?)"
        return text


def refuse(faults: Iterable[Fault]) -> None:
    """Raise all faults as one validation error; does nothing when there are none."""
    found = tuple(faults)
    if found:
        raise refusal(*found)


def refusal(*faults: Fault) -> PydanticCustomError:
    """The validation error that says all these faults."""
    text = "; ".join(map(str, faults))
    return PydanticCustomError(FAULT, "{text}", {"text": text, "faults": faults})


def exactly_one(model: Model, *names: str) -> Iterator[Fault]:
    """Fault a model that has none of some keys, or several of them."""
    given = [name for name in names if getattr(model, name) is not None]
    expected = f"exactly one of {', '.join(names)}"
    if not given:
        yield Fault((), f"found none of {', '.join(names)}", expected)
    for name in given[1:]:
        yield Fault((name,), f"found {name!r} beside {given[0]!r}", expected)


def show(value: object) -> str:
    """A value as a contract would hold it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if isinstance(value, float) and not math.isfinite(value):
        return f".{value}".replace(".-", "-.")
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[0]}"


def closest(word: object, options: Iterable[str]) -> str:
    """The option that ``word`` was probably meant to be, or an empty string."""
    near = difflib.get_close_matches(str(word)[:100], list(options), n=1, cutoff=0.6)
    return near[0] if near else ""


def repeated(values: Sequence[object]) -> list[int]:
    """The indices of values that stood in the list before."""
    return [i for i, value in enumerate(values) if value in values[:i]]


def no_duplicates(values: tuple[Item, ...]) -> tuple[Item, ...]:
    """Refuse a value that stands in the list twice."""
    refuse(Fault((i,), f"{str(values[i])!r} is listed twice") for i in repeated(values))
    return values


def as_tuple(value: object) -> object:
    """A list becomes a tuple; anything else is left for the type check."""
    return tuple(value) if isinstance(value, list) else value


def one_or_more(value: object) -> object:
    """A list becomes a tuple, a scalar a tuple of one."""
    return as_tuple(value) if isinstance(value, (list, tuple)) else (value,)


Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$", max_length=64)]
"""A name that is also a file name: lower-case letters, digits, and single hyphens or
underscores between them."""

Title = Annotated[str, Field(pattern=r"^\S[^\r\n]*$", max_length=120)]
"""A name for people: one line."""

Positive = Annotated[int, Field(ge=1)]
"""A whole number, at least 1."""

ToTuple = BeforeValidator(as_tuple)
Several = Annotated[tuple[Item, ...], Field(min_length=1), ToTuple]
"""A list that is not empty."""

Distinct = Annotated[Several[Item], AfterValidator(no_duplicates)]
"""The same, each once."""

OneOrMore = Annotated[
    tuple[Item, ...],
    Field(min_length=1),
    AfterValidator(no_duplicates),
    BeforeValidator(one_or_more),
]
"""The same, or one value; :func:`or_list` is its JSON schema."""


def or_list(item: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The JSON schema of an item, or of a list of different ones."""
    return {"anyOf": [item, list_of(item)]}


def list_of(item: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The JSON schema of a list of different items."""
    return {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}

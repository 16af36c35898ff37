"""What a cache stores, as a contract writes it: a number format, or codes with scales."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema

from kvparity_contracts.base import Fault, OneOrMore, closest, or_list, refusal, show
from kvparity_contracts.json_types import JsonValue

PLAIN = ("float32", "float16", "bfloat16")
FP8 = ("fp8_e4m3", "fp8_e5m2")
INTEGERS = ("int8", "int4")
FORMS = "float32, float16, bfloat16, fp8_e4m3(tensor|head), fp8_e5m2(tensor|head), int8(g), int4(g)"
GRAMMAR = re.compile(r"([a-z0-9_]+)(?:\(([a-z]+|[1-9][0-9]*)\))?")


@dataclass(frozen=True)
class Store:
    """One format: its name, what one scale is for (``tensor``, ``head``), elements of a group."""

    name: str
    scope: str = ""
    group: int = 0

    @property
    def codes(self) -> bool:
        """Whether codes and scales are stored instead of numbers."""
        return self.name not in PLAIN

    def __str__(self) -> str:
        inside = self.scope or (str(self.group) if self.group else "")
        return f"{self.name}({inside})" if inside else self.name


def parse(text: str) -> Store:
    """Read ``bfloat16``, ``fp8_e4m3(head)``, ``int8(32)``, ...; an fp8 alone is per tensor.

    Raises a fault, like any validator of a contract, for anything else.
    """
    match = GRAMMAR.fullmatch(text)
    name, inside = (match[1], match[2]) if match else ("", None)
    if name in PLAIN and inside is None:
        return Store(name)
    if name in FP8 and inside in (None, "tensor", "head"):
        return Store(name, scope=inside or "tensor")
    if name in INTEGERS and inside is not None and inside.isdigit():
        return Store(name, group=int(inside))
    raise refusal(Fault((), f"found {text!r}", f"one of {FORMS}", _suggestion(text)))


def _suggestion(text: str) -> str:
    word, _, rest = text.lower().replace("-", "_").partition("(")
    name = closest(word, (*PLAIN, *FP8, *INTEGERS))
    digits = re.sub(r"[^0-9]", "", rest).lstrip("0")
    return f"{name}({digits or 32})" if name in INTEGERS else name


def _canonical(value: object) -> str:
    if not isinstance(value, str):
        raise refusal(Fault((), f"found {show(value)}", f"one of {FORMS}"))
    return str(parse(value))


_ITEM: dict[str, JsonValue] = {
    "anyOf": [
        {
            "enum": [
                *PLAIN,
                *FP8,
                *(f"{name}({scope})" for name in FP8 for scope in ("tensor", "head")),
            ]
        },
        {"type": "string", "pattern": r"^int[84]\([1-9][0-9]*\)$"},
    ]
}

StoreText = Annotated[str, PlainValidator(_canonical), WithJsonSchema(_ITEM)]

Stores = Annotated[OneOrMore[StoreText], WithJsonSchema(or_list(_ITEM))]


def lossy(texts: Sequence[str]) -> list[str]:
    """Those of the formats that store codes."""
    return [text for text in texts if parse(text).codes]

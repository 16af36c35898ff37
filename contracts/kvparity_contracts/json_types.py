"""What passes as JSON, as types that every room shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import TypeAliasType

JsonValue = TypeAliasType(
    "JsonValue",
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None",
)
"""A value of a JSON document. Read-only, so that ``dict[str, int]`` is one, too."""

JsonObject = TypeAliasType("JsonObject", Mapping[str, JsonValue])
"""A document, or an object in one, whose keys are not fixed by a model or a ``TypedDict``."""

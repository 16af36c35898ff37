"""The JSON schema of contracts, for editors and for other programs that check them.

Where a key names a kind (``kind``, ``relation``), each kind has a condition of its own, so that a
mistake is told at its place, and not as a whole that is valid under none of several schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kvparity_contracts.contract import Contract
from kvparity_contracts.described import DescribedSchema
from kvparity_contracts.json_types import JsonObject, JsonValue
from kvparity_contracts.library import FOLDER
from kvparity_contracts.sides import RecordedSide, Sides

FILE = FOLDER / "contract.schema.json"
"""The committed copy, which the contracts of the library name in their first line."""


def schema() -> dict[str, JsonValue]:
    """JSON schema (draft 7) of a contract; editors complete keys and show their meaning."""
    # yaml-language-server reads draft 7; nothing here needs more.
    found = _by_kind(Contract.model_json_schema(schema_generator=DescribedSchema))
    assert isinstance(found, dict)
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return {**draft, **found, **_required_beside(Sides.TAG)}


def text() -> str:
    """The schema as the committed file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _by_kind(value: JsonValue) -> JsonValue:
    """Every choice between models that a key decides, as one condition for each."""
    if isinstance(value, Mapping):
        inner = _or_null({key: _by_kind(each) for key, each in value.items()})
        told = inner.pop("discriminator", None)
        if not isinstance(told, Mapping):
            return inner
        kinds, models = told["mapping"], inner.pop("oneOf")
        assert isinstance(kinds, Mapping)
        assert isinstance(models, Sequence)
        ordered = [
            (kind, each) for each in models for kind in kinds if each == {"$ref": kinds[kind]}
        ]
        return inner | _choice(str(told["propertyName"]), ordered)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_by_kind(each) for each in value]
    return value


def _or_null(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """An optional value as one schema, so that a mistake in it is told as one in the value."""
    match value.get("anyOf"):
        case [Mapping() as only, {"type": "null"}] if isinstance(only.get("type"), str):
            inner: dict[str, JsonValue] = {**value, **only, "type": [only["type"], "null"]}
            del inner["anyOf"]
            if "const" in inner:
                inner["enum"] = [inner.pop("const")]
            if isinstance(told := inner.get("enum"), list):
                inner["enum"] = [*told, None]
            return inner
    return value


def _choice(key: str, models: Sequence[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": {key: {"enum": [kind for kind, _ in models]}},
        "required": [key],
        "allOf": [{"if": _says(key, kind), "then": model} for kind, model in models],
    }


def _says(key: str, kind: str) -> JsonObject:
    return {"properties": {key: {"const": kind}}, "required": [key]}


def _required_beside(sides: str) -> dict[str, JsonValue]:
    """Which parts two sides have: formats of their own, and workloads where their rollout draws."""
    subject: JsonObject = {"properties": {"subject": _says("kind", sides)}, "required": ["subject"]}
    recorded: JsonObject = {"properties": {"rollout": _says("kind", RecordedSide.TAG)}}
    given: JsonObject = {"properties": {"subject": {"anyOf": [{"required": ["tokens"]}, recorded]}}}
    own: JsonObject = {"not": {"description": "two sides say their formats themselves"}}
    recorded_ids: JsonObject = {"not": {"description": "the tokens of these sides are given"}}
    return {
        "if": subject,
        "then": {
            "properties": {"numerics": own},
            "if": given,
            "then": {"properties": {"workloads": recorded_ids}},
            "else": {"required": ["workloads"]},
        },
        "else": {"required": ["numerics", "workloads"]},
    }

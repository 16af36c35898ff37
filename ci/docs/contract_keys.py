"""The keys of a contract as tables, from its JSON schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from commands import table
from typing_extensions import NotRequired, TypedDict

from kvparity_contracts import schema

SECTIONS = {
    "Contract": "The file",
    "Attention": "`subject` with `kind: attention`",
    "Heads": "`heads`",
    "AlibiBias": "`bias` with `kind: alibi`",
    "RelativeBias": "`bias` with `kind: relative`",
    "Decoder": "`subject` with `kind: decoder`",
    "DecoderConfig": "`config` of a decoder",
    "DecoderCache": "`cache` of a decoder",
    "Transformers": "`subject` with `kind: transformers`",
    "ServerSubject": "`subject` with `kind: server`",
    "Sides": "`subject` with `kind: sides`",
    "RecordedSide": "A side with `kind: recorded`",
    "ModelSideSpec": "A side with `kind: model`",
    "ServerSide": "A side with `kind: server`",
    "Order": "`order`",
    "Numerics": "`numerics`",
    "Workload": "One of `workloads`",
    "ChosenRows": "`rows` of a workload",
    "ChatMessage": "One message of a chat",
    "Invariance": "One of `checks` with `relation: invariance`",
    "Accuracy": "One of `checks` with `relation: accuracy`",
    "TraceCheck": "One of `checks` with `relation: trace`",
    "ReproductionCheck": "One of `checks` with `relation: reproduction`",
    "CacheCheck": "One of `checks` with `relation: cache`",
    "LivenessCheck": "One of `checks` with `relation: liveness`",
    "OrderCheck": "One of `checks` with `relation: order`",
    "AuditCheck": "One of `checks` with `relation: audit`",
    "DecodeTiles": "`decode` of an audit check",
    "ParityCheck": "One of `checks` with `relation: parity`",
    "TpInvariance": "One of `checks` with `relation: tp-invariance`",
    "Limits": "`limits`",
    "LimitsByDType": "`limits` by format",
}
"""The models of a contract in the order of the reference, with their headings."""

BOUNDS = {"minimum": "at least {}", "exclusiveMinimum": "above {}", "maximum": "at most {}"}
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}


class SchemaField(TypedDict, total=False):
    """A key of a JSON schema, as far as it is read."""

    type: str | list[str]
    description: str
    default: object
    const: object
    enum: list[object]
    items: SchemaField
    anyOf: list[SchemaField]
    oneOf: list[SchemaField]
    allOf: list[SchemaCondition]
    pattern: str


class SchemaCondition(TypedDict, total=False):
    """What holds of one kind of a value that has several."""

    then: SchemaField


class SchemaObject(TypedDict):
    """An object of a JSON schema."""

    properties: dict[str, SchemaField]
    required: NotRequired[list[str]]


def anchor(title: str) -> str:
    """The fragment by which a heading is linked to."""
    return re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-")


def keys() -> str:
    """One table for each model of the contract."""
    top = schema()
    models: dict[str, SchemaObject] = {"Contract": top, **top["$defs"]}
    if set(models) != set(SECTIONS):
        raise SystemExit(f"SECTIONS and the models differ: {set(models) ^ set(SECTIONS)}")
    return "\n\n".join(f"### {title}\n\n{_model(models[name])}" for name, title in SECTIONS.items())


def _model(model: SchemaObject) -> str:
    required = model.get("required", ())

    def rows() -> Iterator[Sequence[str]]:
        for name, field in model["properties"].items():
            default = "required" if name in required else _default(field.get("default"))
            yield f"`{name}`", _kind(field), default, field["description"].replace("\n", " ")

    return table(["key", "value", "if left out", "meaning"], rows())


def _default(value: object) -> str:
    if value is None or value == "":
        return "–"
    text = str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")
    return f"`{text}`"


def _kind(field: SchemaField) -> str:
    """The values that a field takes, in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{anchor(SECTIONS[name])})"
    if "const" in field:
        return f"`{_plain(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{_plain(each)}`" for each in field["enum"] if each is not None)
    kinds = [each["then"] for each in field.get("allOf", ())]
    every = field.get("anyOf", field.get("oneOf", kinds))
    options = [o for o in every if o.get("type") != "null"]
    if any("chunked" in option.get("pattern", "") for option in options):
        return "[path](#paths)"
    if len(options) == 2 and options[1].get("items") == options[0]:
        return f"{_kind(options[0])}; or a list"
    if options:
        return " or ".join(_kind(option) for option in options)
    kind, *_ = [field["type"]] if isinstance(field["type"], str) else field["type"]  # or null
    if kind == "array":
        return f"list of: {_kind(field['items'])}"
    if kind == "object":
        return "mapping"
    bounds = [text.format(field[key]) for key, text in BOUNDS.items() if key in field]
    return f"{WORDS[kind]} {', '.join(bounds)}".strip()


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Validation errors in plain words, with the place in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel, ValidationError

from kvparity_contracts.base import FAULT, Fault, KeyPath, Model, closest, show
from kvparity_contracts.checks import CHECKS, Check, KernelCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.described import meanings
from kvparity_contracts.subjects import Attention

TOLERANCE = re.compile(
    r"limits?|tol(erance)?|[ar]tol|threshold|epsilon|max_abs.*|approx_kl.*|clip.*"
)
PATHS = ("reference", "paths", "workloads")
DECLARED_BY = {
    "alibi_slopes": "bias: {kind: alibi}",
    "alibi": "bias: {kind: alibi}",
    "attn_bias": "bias: {kind: relative, distances: 32}",
    "relative_bias": "bias: {kind: relative, distances: 32}",
    "sink": "sinks: [-1, 3]",
    "s_aux": "sinks: [-1, 3]",
}
"""Keys of a pair that people look for, and what declares it."""
UNVERIFIED: dict[str, tuple[str, str]] = {
    "mask": ("masks", "window, or a pair that is causal"),
    "attn_mask": ("masks", "window, or a pair that is causal"),
}
"""Keys of a pair that people look for, what they stand for, and what can be had instead."""
MEANT = {"block_table": "page", "block_size": "page"}
"""Keys of a pair by other names, too far from their own to be taken for a slip."""

EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}
NUMBER = {
    "int_type": re.compile(r"-?[0-9]+"),
    "float_type": re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?"),
}
"""Texts that are a number once their quotes are gone."""
BOUNDS = {
    "greater_than": ("gt", "a number above {:g}"),
    "greater_than_equal": ("ge", "at least {:g}"),
    "less_than_equal": ("le", "at most {:g}"),
    "too_short": ("min_length", "at least {} in the list"),
    "string_too_short": ("min_length", "at least {} character"),
    "string_too_long": ("max_length", "at most {} characters"),
}


def explain(error: ValidationError, root: type[Model] = Contract) -> Iterator[tuple[Fault, bool]]:
    """Each fault of a ``root``, and whether it stands at the key (else at the value)."""
    for each in error.errors(include_url=False):
        path, model = resolve(each["loc"], root)
        context = each.get("ctx", {})
        if each["type"] == FAULT:
            for fault in context["faults"]:
                at = (*path, *fault.at)
                found = Fault(at, fault.message, fault.expected, fault.suggestion)
                yield found, not fault.at and isinstance(each["input"], dict)
            continue
        if each["type"] == "too_short" and len(each["input"]) >= context["min_length"]:
            continue  # long enough, but for items that have faults of their own
        yield _one(each["type"], path, model, each["input"], context)


def _one(
    kind: str,
    path: KeyPath,
    model: type[BaseModel] | None,
    found: object,
    context: Mapping[str, object],
) -> tuple[Fault, bool]:
    if kind == "extra_forbidden":
        return _unknown(path, model), True
    if kind == "missing":
        about = meanings(model).get(str(path[-1]), "") if model else ""
        about = about.split("\n")[0].rstrip(".")
        meaning = about[:1].lower() + about[1:]
        return Fault(path[:-1], f"the key {path[-1]!r} is missing", meaning), True
    if kind == "union_tag_not_found":
        key = str(context["discriminator"]).strip("'")
        if not isinstance(found, dict):
            return Fault(path, f"found {show(found)}", "a mapping"), False
        return Fault(path, f"the key {key!r} is missing", one_of(_tags(path, model))), True
    if kind == "union_tag_invalid":
        key = str(context["discriminator"]).strip("'")
        return _choice((*path, key), context["tag"], _tags(path, model)), False
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", str(context["expected"]))
        return _choice(
            path, found, options or re.findall(r"[^\s,]+", str(context["expected"]))
        ), False
    if kind == "string_pattern_mismatch":
        return Fault(path, f"found {show(found)}", *_name(model, str(found))), False
    if kind in BOUNDS:
        key, text = BOUNDS[kind]
        return Fault(path, f"found {show(found)}", text.format(context[key])), False
    return Fault(path, f"found {show(found)}", _expected(kind, found, context)), False


def _expected(kind: str, found: object, context: Mapping[str, object]) -> str:
    """What should stand there, and what makes it of what does."""
    expected = EXPECTED.get(kind, "another value")
    if kind == "model_type":
        needed = _required(str(context.get("class_name")))
        return f"{expected} with {', '.join(needed)}" if needed else expected
    if kind == "tuple_type" and isinstance(found, (int, float, str)):
        return f"{expected}, in brackets: [{found}]" if len(str(found)) <= 60 else expected
    words = found.split() if kind in NUMBER and isinstance(found, str) else []
    if words and all(NUMBER[kind].fullmatch(each) for each in words):
        return f"{expected}, without quotes" if len(words) == 1 else f"{expected} before each comma"
    return expected


def _required(name: str) -> list[str]:
    """The keys that a model of this name cannot do without."""
    return [
        key
        for model in Model.__subclasses__()
        if model.__name__ == name
        for key, field in model.model_fields.items()
        if field.is_required()
    ]


def _unknown(path: KeyPath, model: type[BaseModel] | None) -> Fault:
    key = str(path[-1])
    check = model if model and issubclass(model, Check) else Check
    if check.TAKES_NO_TOLERANCE and TOLERANCE.fullmatch(key):
        return Fault(path, check.TAKES_NO_TOLERANCE)
    if issubclass(check, KernelCheck) and (key in PATHS or TOLERANCE.fullmatch(key)):
        takes = f"no {key}" if key in PATHS else "no tolerance"
        return Fault(path, f"{check.COMPARES}; it takes {takes}")
    fields = list(model.model_fields) if model else []
    if model is Attention and key in UNVERIFIED:
        what, instead = UNVERIFIED[key]
        message = f"found {key!r}, but {what} are not part of the signature of a pair yet"
        return Fault(path, f"{message}: what they add is not verified", instead)
    if model is Attention and key in DECLARED_BY:
        return Fault(path, f"found the unknown key {show(key)}", DECLARED_BY[key])
    expected = one_of(fields)
    if ":" in key:  # YAML takes a colon without a space as part of a word
        expected += "; and a space behind the colon of a key"
    near = MEANT.get(key, "") if model is Attention else ""
    return Fault(path, f"found the unknown key {show(key)}", expected, near or closest(key, fields))


def _choice(path: KeyPath, found: object, options: list[str]) -> Fault:
    options = [option for option in options if option != "or"]
    near = closest(found, options) if isinstance(found, str) else ""
    return Fault(path, f"found {show(found)}", one_of(options), near)


def _name(model: type[BaseModel] | None, found: str) -> tuple[str, str]:
    if model is not None and issubclass(model, Check):
        return "one line of text", " ".join(found.split())
    slug = re.sub(r"[^a-z0-9]+", "-", found.lower()).strip("-")
    return "lower-case letters, digits and single hyphens or underscores", slug


def one_of(options: list[str]) -> str:
    """The options as words."""
    return f"one of {', '.join(options)}" if len(options) > 1 else "".join(options)


def resolve(
    loc: tuple[int | str, ...], root: type[Model] = Contract
) -> tuple[KeyPath, type[BaseModel] | None]:
    """The key path of an error without the tags of unions, and the model of its last key."""
    models: list[type[Model]] = [root]
    inside: type[BaseModel] | None = root
    path: list[int | str] = []
    for part in loc:
        if len(models) > 1 and isinstance(part, str):
            # A union: what comes next is its tag, not a key.
            models = [each for each in models if getattr(each, "TAG", None) == part]
            continue
        if isinstance(part, str) and models:
            inside = models[0]
        path.append(part)
        if isinstance(part, str):
            field = inside.model_fields.get(part) if inside and models else None
            models = list(_models(field.annotation)) if field else []
    return tuple(path), inside


def _tags(path: KeyPath, model: type[BaseModel] | None) -> list[str]:
    key = next(part for part in reversed(path) if isinstance(part, str))
    field = (model or Contract).model_fields[key]
    return [getattr(each, "TAG", "") for each in _models(field.annotation)]


def _models(annotation: object) -> tuple[type[Model], ...]:
    """All models that an annotation mentions."""
    if annotation is Check:
        return tuple(CHECKS.values())
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return (annotation,)
    return tuple(each for part in get_args(annotation) for each in _models(part))

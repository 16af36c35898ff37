"""The fields of a report and of its lines as tables, from the models that write them."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Union, get_args, get_origin

from commands import table
from pydantic import BaseModel

from kvparity.plan.results import CaseLine, Details
from kvparity.relations.registry import RELATIONS
from kvparity.report.document import TextIds
from kvparity_contracts.described import meanings

HEAD = ["field", "meaning"]
WHOLE = (TextIds,)
"""Models whose fields the meaning of the whole names."""
Row = Sequence[str]


def fields(model: type[BaseModel]) -> str:
    """The fields of a report, or of a line."""
    return table(HEAD, _rows(model, ""))


def _rows(model: type[BaseModel], prefix: str) -> Iterator[Row]:
    told = meanings(model)
    for name, field in model.model_fields.items():
        kinds, many, null = _kinds(field.annotation)
        place = f"{prefix}{field.alias or name}" + ("[]" if many else "")
        inner = [each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)]
        if inner and issubclass(inner[0], Details):
            yield from _of_relations(prefix)
        elif inner and inner[0] not in WHOLE:
            if null:
                yield _row(place, told.get(name))
            yield from _rows(inner[0], f"{place}.")
        else:
            yield _row(f"{place}.*" if dict in map(_outer, kinds) else place, told.get(name))


def _of_relations(prefix: str) -> Iterator[Row]:
    """What only the cases of one relation have."""
    for relation in RELATIONS.values():
        field = relation.line.model_fields["details"]
        yield _row(f"{prefix}{field.alias}.*", meanings(relation.line).get("details"))


def _row(place: str, meaning: str | None) -> Row:
    if not meaning:
        raise SystemExit(f"{place} has no docstring that says what it means")
    return f"`{place}`", " ".join(meaning.split())


def _outer(kind: object) -> object:
    return get_origin(kind) or kind


def _kinds(kind: object) -> tuple[list[object], bool, bool]:
    """(the types that a field may have, whether as a list of them, whether it may be null)."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _kinds(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        parts = get_args(kind)
        found = [each for part in parts if part is not type(None) for each in _kinds(part)[0]]
        return found, False, type(None) in parts
    if origin is tuple and issubclass(type(first := get_args(kind)[0]), type):
        return [first], issubclass(first, BaseModel), False
    if origin is tuple:
        inner = _kinds(get_args(kind)[0])[0]
        models = [each for each in inner if isinstance(each, type) and issubclass(each, CaseLine)]
        return (models, True, False) if models else ([kind], False, False)
    return [kind], False, False

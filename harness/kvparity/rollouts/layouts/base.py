"""What a layout is: the keys by which it is known, and its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.record import FilePlace, RawRollout, RolloutError
from kvparity_contracts.json_types import JsonObject

Ids = list[int]
Values = list[float | None]
Flags = list[bool | int | float]


class Foreign(BaseModel):
    """A document of others: what is read of it is strict, the rest is theirs."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


Read = Callable[[JsonObject, FilePlace, Anomalies], Iterator[RawRollout]]


@dataclass(frozen=True)
class FileLayout:
    """``keys``: a document with all of them is of this layout. ``inner``: keys that the value of
    another must have. ``read``: its sequences; None where it lacks what is needed, and ``lacks``
    says what, and how to record it."""

    name: str
    keys: frozenset[str]
    read: Read | None
    inner: Mapping[str, frozenset[str]]
    lacks: str = ""

    def fits(self, document: JsonObject) -> bool:
        """Whether a document is of this layout."""
        return self.keys <= document.keys() and all(
            keys <= _first(document.get(name)).keys() for name, keys in self.inner.items()
        )


def _first(value: object) -> Mapping[str, object]:
    """An object, or the first of a list of objects."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else {}


def layout(name: str, keys: str, read: Read, **inner: str) -> FileLayout:
    """Keys in one string, by spaces."""
    return FileLayout(
        name, frozenset(keys.split()), read, {k: frozenset(v.split()) for k, v in inner.items()}
    )


def rows(batch: Foreign, at: FilePlace, of: str = "") -> int:
    """How many sequences a batch of lists has, one entry for each sequence in every list.

    Raises:
        RolloutError: they differ; ``of`` begins the message.
    """
    sizes = {name: len(column) for name, column in batch if column is not None}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise RolloutError(
            f"{at}: {of}lists of unequal length: {said}; expected one for each sequence"
        )
    return next(iter(sizes.values()))


AnyModel = TypeVar("AnyModel", bound=BaseModel)


def parsed(model: type[AnyModel], document: object, at: FilePlace) -> AnyModel:
    """The document as ``model``.

    Raises:
        RolloutError: a field is missing or of another kind.
    """
    try:
        return TypeAdapter(model).validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        names = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"])
        where = "".join(names).removeprefix(".")
        raise RolloutError(f"{at}: {where}: {first['msg']}") from None

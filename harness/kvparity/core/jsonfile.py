"""JSON files that other people wrote: read whole or refused in one sentence that names the file."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from kvparity.core.errors import UnsupportedError
from kvparity_contracts.base import show
from kvparity_contracts.json_types import JsonObject, JsonValue

MOST_BYTES = 64 * 2**20
"""Far above the index of any checkpoint."""


def read_object(path: Path) -> JsonObject:
    """The object in a JSON file; its keys are not looked at.

    Raises:
        UnsupportedError: no regular file, above 64 MiB, not UTF-8, no JSON, nested too deeply, or
            no object.
    """
    if not path.exists():
        raise UnsupportedError(f"no {path.name} in {path.parent}")
    if not path.is_file():
        raise UnsupportedError(f"{path} is not a regular file")
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UnsupportedError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MOST_BYTES:
        raise UnsupportedError(f"{path} is larger than {MOST_BYTES >> 20} MiB; expected settings")
    try:
        data = json.loads(raw)
    except RecursionError:
        raise UnsupportedError(f"{path} cannot be read as JSON: it is nested too deeply") from None
    except ValueError as error:  # of UTF-8, too
        raise UnsupportedError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise UnsupportedError(f"{path} holds {type(data).__name__}, not an object")
    return data


def weight_map(index: Path) -> dict[str, str]:
    """The file beside it that an index of safetensors names for each tensor.

    Raises:
        UnsupportedError: it names none, or something else than files beside it.
    """
    found = read_object(index).get("weight_map")
    if not isinstance(found, Mapping) or not found:
        raise UnsupportedError(
            f"{index}: weight_map is {show(found)}; expected an object of tensor names and files"
        )
    names = {}
    for tensor, name in found.items():
        if not isinstance(name, str) or Path(name).name != name or not name:
            raise UnsupportedError(
                f"{index}: weight_map.{tensor} is {show(name)}; expected the name of a file "
                "beside it"
            )
        names[tensor] = name
    return names


def entries(data: JsonObject) -> Iterator[tuple[str, str, JsonValue]]:
    """(dotted place, its last key, value) of everything in nested objects and lists."""
    waiting = deque((str(key), str(key), it) for key, it in data.items())
    while waiting:
        place, key, value = waiting.popleft()
        yield place, key, value
        if isinstance(value, Mapping):
            waiting += [(f"{place}.{inner}", str(inner), it) for inner, it in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}[{i}]", key, it) for i, it in enumerate(value)]


def not_a_number(data: JsonObject) -> str | None:
    """Where a NaN stands, or None."""
    return next(
        (place for place, _, it in entries(data) if isinstance(it, float) and math.isnan(it)), None
    )

"""What a recording's file is by its content, and the objects in it, one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from kvparity.rollouts import parquet
from kvparity.rollouts.record import FilePlace, RolloutError
from kvparity_contracts.json_types import JsonObject, JsonValue

TENSOR = "tensor"
"""The field of a file that holds one tensor alone."""
Documents = Iterator[tuple[FilePlace, JsonObject]]


def documents(path: Path) -> Documents:
    """Objects with their places. JSON Lines are read line by line; other files whole.

    Raises:
        RolloutError: no such file, an empty one, one that only pickle could read, or no JSON.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except IsADirectoryError:
        raise RolloutError(f"{path} is a folder; expected a file of recorded rollouts") from None
    except OSError as error:
        raise RolloutError(f"{path} cannot be read: {error.strerror}") from error
    if not start.strip():
        raise RolloutError(f"{path} is empty; expected recorded rollouts")
    if start.startswith(b"PK\x03\x04"):
        return _torch(path)
    if start.startswith(b"PAR1"):
        return parquet.documents(path)
    if start.startswith(b"\x80"):
        raise RolloutError(f"{path} {PICKLE}")
    if start[8:9] == b"{":
        return _safetensors(path)
    return _json(path)


PICKLE = (
    "holds pickled objects, which can run code and are never loaded. Save its tensors instead: "
    "torch.save({name: data.batch[name] for name in data.batch.keys()}, 'rollouts.pt')"
)


def _json(path: Path) -> Documents:
    """JSON Lines, if the first line is a whole document and more follow; else one document."""
    with path.open("rb") as file:
        first = file.readline()
        more = any(line.strip() for line in file)
    try:
        if more:
            json.loads(first)
            return _lines(path)
    except ValueError:
        pass
    return _whole(path)


def _lines(path: Path) -> Documents:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            at = FilePlace(path, number)
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                cut = "" if line.endswith(b"\n") else "; the file ends in the middle of this line"
                raise RolloutError(f"{at} is no JSON: {error}{cut}") from None
            yield at, _object(found, at)


def _whole(path: Path) -> Documents:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RolloutError(
            f"{path} is neither JSON nor JSON Lines ({error}), nor a file of torch, safetensors or "
            "Parquet"
        ) from None
    return _each(found, path)


def _each(found: JsonValue, path: Path) -> Documents:
    if not isinstance(found, list):
        yield FilePlace(path), _object(found, FilePlace(path))
        return
    for number, each in enumerate(found):
        at = FilePlace(path, number, lines=False)
        yield at, _object(each, at)


def _object(found: JsonValue, at: FilePlace) -> JsonObject:
    if not isinstance(found, dict):
        kind = "a list" if isinstance(found, list) else json.dumps(found)[:20]
        raise RolloutError(f"{at} is {kind}; expected an object with fields")
    return found


def _torch(path: Path) -> Documents:
    import pickle

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise RolloutError(f"{path} {PICKLE}") from None
    except (RuntimeError, EOFError, OSError) as error:
        raise RolloutError(f"{path} is no whole file of torch.save: {error}") from None
    if isinstance(found, torch.Tensor):
        found = {TENSOR: found}
    return _each(_plain(found), path)


def _safetensors(path: Path) -> Documents:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except SafetensorError as error:
        raise RolloutError(f"{path} is no whole file of safetensors: {error}") from None
    return _each(_plain(dict(found)), path)


def _plain(value: object) -> JsonValue:
    """Tensors as lists; every float of a narrower dtype is exact as a Python float."""
    import torch

    if isinstance(value, torch.Tensor):
        listed: JsonValue = value.tolist()
        return listed
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)

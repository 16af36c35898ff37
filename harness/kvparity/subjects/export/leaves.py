"""Tensors inside values: named, taken out, and put back as others.

A program has a flat list of tensor inputs, a decoder has dataclasses of them. The path of a tensor
names it in both: ``layers.0.qkv``, ``prefill.seen.kv_lens``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import TypeGuard, TypeVar, cast

from torch import Tensor

T = TypeVar("T")
Leaf = Callable[[str, Tensor | int], Tensor | int]
"""(path, tensor or whole number) -> what stands there instead."""

_HOME = "kvparity"  # what is looked into, beside lists, tuples and dicts


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _inside(value: object) -> Iterable[tuple[object, object]] | None:
    """What a value consists of, by name; None if it is taken as a whole."""
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    if isinstance(value, dict):
        return value.items()
    if type(value).__module__.split(".")[0] == _HOME and hasattr(value, "__dict__"):
        return vars(value).items()
    return None


def walk(value: object, path: str = "") -> Iterator[tuple[str, Tensor | int]]:
    """Every tensor and every whole number (no bool) in ``value``, with its path."""
    if isinstance(value, Tensor) or _whole(value):
        yield path, value
        return
    for name, part in _inside(value) or ():
        yield from walk(part, _join(path, name))


def _whole(value: object) -> TypeGuard[int]:
    return type(value) is int  # no bool


def tensors(value: object) -> dict[str, Tensor]:
    """The tensors in ``value`` by path; one that is held twice is listed under its first path."""
    found: dict[str, Tensor] = {}
    known: set[int] = set()
    for path, part in walk(value):
        if isinstance(part, Tensor) and id(part) not in known:
            known.add(id(part))
            found[path] = part
    return found


def rebuilt(value: T, leaf: Leaf, path: str = "") -> T:
    """``value`` with each tensor and whole number replaced; nothing of the old one is changed."""
    return cast("T", _rebuilt(value, leaf, path))


def _rebuilt(value: object, leaf: Leaf, path: str) -> object:
    if isinstance(value, Tensor) or _whole(value):
        return leaf(path, value)
    parts = _inside(value)
    if parts is None:
        return value
    new = {name: _rebuilt(part, leaf, _join(path, name)) for name, part in parts}
    if isinstance(value, (list, tuple)):
        return type(value)(new.values())
    if isinstance(value, dict):
        return new
    other = copy.copy(value)
    for name, part in new.items():
        object.__setattr__(other, str(name), part)  # frozen dataclasses too
    return other

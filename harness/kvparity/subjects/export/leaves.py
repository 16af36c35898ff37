"""Tensors inside values: named, taken out, and put back as others.

A program has a flat list of tensor inputs, a decoder has dataclasses of them. Both sides are told
apart by the path of a tensor: ``layers.0.qkv``, ``prefill.seen.kv_lens``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

Leaf = Callable[[str, Any], Any]
"""(path, tensor or whole number) -> what stands there instead."""

_HOME = "kvparity"  # what is looked into, beside lists, tuples and dicts


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _inside(value: Any) -> Any:
    """The parts of a value by name, or None if it is looked at no further."""
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, dict):
        return value
    if type(value).__module__.split(".")[0] == _HOME and hasattr(value, "__dict__"):
        return vars(value)
    return None


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor and every whole number (no bool) in ``value``, with its path."""
    if isinstance(value, Tensor) or type(value) is int:
        yield path, value
        return
    for name, part in (_inside(value) or {}).items():
        yield from walk(part, _join(path, name))


def tensors(value: Any) -> dict[str, Tensor]:
    """The tensors in ``value`` by path; one that is held twice is listed under its first path."""
    found: dict[str, Tensor] = {}
    known: set[int] = set()
    for path, part in walk(value):
        if isinstance(part, Tensor) and id(part) not in known:
            known.add(id(part))
            found[path] = part
    return found


def rebuilt(value: Any, leaf: Leaf, path: str = "") -> Any:
    """``value`` with each tensor and whole number replaced; nothing of the old one is changed."""
    if isinstance(value, Tensor) or type(value) is int:
        return leaf(path, value)
    parts = _inside(value)
    if parts is None:
        return value
    new = {name: rebuilt(part, leaf, _join(path, name)) for name, part in parts.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(new.values())
    if isinstance(value, dict):
        return new
    other = copy.copy(value)
    for name, part in new.items():
        object.__setattr__(other, name, part)  # frozen dataclasses too
    return other

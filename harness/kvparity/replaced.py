"""Functions that a comparison rests on, and whether they are still the ones that were there.

A subject shares its process with the comparison of its rows. One that puts something else in the
place of ``torch.equal`` or of a method of tensors would compare itself.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

_OWN = ("kvparity", "kvparity_kernels")
_LIBRARIES: tuple[Any, ...] = (
    torch, torch.linalg, np, safetensors.torch, json, hashlib, math, builtins,
)  # fmt: skip
_TYPES: tuple[type, ...] = (torch.Tensor, torch.nn.Parameter)
_NO_FUNCTION = ("__doc__", "__module__", "__dict__", "__weakref__", "__annotations__")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_TORCH = f"{Path(str(torch.__file__)).parent}/"

Known = dict[tuple[int, str], tuple[Any, Any]]
"""By the owner's identity and the name: the owner, and what it had under the name."""


def functions() -> Known:
    """All functions and methods that count, as they are now."""
    found: Known = {}
    for owner in _owners():
        if isinstance(owner, type):
            for name in dir(owner) if owner in _TYPES else list(vars(owner)):
                if name not in _NO_FUNCTION:
                    found[id(owner), name] = (owner, _had(owner, name))
        else:
            for name, value in vars(owner).items():
                if callable(value):
                    found[id(owner), name] = (owner, value)
    return found


def _had(owner: Any, name: str) -> Any:
    """What an owner has under a name; a class also what it inherits, which it can be hidden by."""
    for each in owner.__mro__ if isinstance(owner, type) else (owner,):
        if name in vars(each):
            return vars(each)[name]
    return None


def _owners() -> Iterator[Any]:
    yield from _LIBRARIES
    yield from _TYPES
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _OWN and module is not None:
            yield module
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name:
                    yield value


def replaced(known: Known) -> str | None:
    """The first function that is no longer what it was, in words, or None."""
    for (_, name), (owner, value) in known.items():
        now = _had(owner, name)
        if now is not value and not _of_torch(now):
            return f"{_name(owner)}.{name} is no longer the function that it was"
    return None


def _of_torch(function: Any) -> bool:
    """Whether torch itself put it there, which wraps functions of its own when dynamo is loaded."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(_TORCH)


def put_back(known: Known) -> None:
    """Undo what was replaced."""
    for (_, name), (owner, value) in known.items():
        if _had(owner, name) is not value:
            with suppress(AttributeError, TypeError):
                setattr(owner, name, value)


def handlers() -> dict[int, Any]:
    """What happens at the signals by which people end processes."""
    return {number: signal.getsignal(number) for number in _SIGNALS}


def handled(known: dict[int, Any]) -> str | None:
    """The signal that is handled otherwise than it was, in words, or None."""
    for number, handler in known.items():
        if signal.getsignal(number) is not handler:
            return f"{signal.Signals(number).name} has another handler"
    return None


def _name(owner: Any) -> str:
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}"
    return str(owner.__name__)

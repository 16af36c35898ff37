"""Functions that a comparison rests on, and whether they are still the ones that were there.

A subject shares its process with the comparison of its rows. One that puts something else in the
place of ``torch.equal`` or of a method of tensors would compare itself.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import math
import operator
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import safetensors.torch
import torch

from kvparity.core import interrupts

_OWN = ("kvparity", "kvparity_kernels")
_LIBRARIES: tuple[ModuleType, ...] = (
    torch, torch.linalg, np, safetensors.torch, json, hashlib, math, builtins, os, time,
)  # fmt: skip
_TYPES: tuple[type, ...] = (torch.Tensor, torch.nn.Parameter)
_NO_FUNCTION = ("__doc__", "__module__", "__dict__", "__weakref__", "__annotations__")
_OURS_TO_REPLACE = {(id(os), "_exit")}  # where a subject runs in a test's own process
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_TORCH = f"{Path(str(torch.__file__)).parent}/"

Known = dict[tuple[int, str], tuple[object, object, object]]
"""By the owner's identity and the name: the owner, what it had under the name, and its code."""
_OfOne = tuple[Callable[[str], object], list[str], list[object]]
"""How what an owner has is looked up, names, and what it had under them."""


def functions() -> Known:
    """All functions and methods that count, as they are now."""
    found: Known = {}
    for owner in _owners():
        if isinstance(owner, type):
            for name in dir(owner) if owner in _TYPES else list(vars(owner)):
                if name not in _NO_FUNCTION:
                    value = _had(owner, name)
                    found[id(owner), name] = (owner, value, _code(value))
        else:
            for name, value in vars(owner).items():
                if callable(value) and (id(owner), name) not in _OURS_TO_REPLACE:
                    found[id(owner), name] = (owner, value, _code(value))
    for name, module in list(sys.modules.items()):
        if _own(name):
            found[id(sys.modules), name] = (sys.modules, module, None)
    return found


def _had(owner: object, name: str) -> object:
    """What an owner has under a name; a class also what it inherits, which it can be hidden by."""
    if isinstance(owner, dict):
        return owner.get(name)
    for each in owner.__mro__ if isinstance(owner, type) else (owner,):
        if name in vars(each):
            return vars(each)[name]
    return None


def _code(function: object) -> object:
    """What a function of Python computes: it can be put into another one's place by itself."""
    return getattr(function, "__code__", None)


def _own(module: str) -> bool:
    return module.partition(".")[0] in _OWN


def _owners() -> Iterator[object]:
    yield from _LIBRARIES
    yield from _TYPES
    for name, module in list(sys.modules.items()):
        if _own(name) and module is not None:
            yield module
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name:
                    yield value


def watching(known: Known) -> Callable[[], str | None]:
    """What finds the first function that is no longer what it was, in words, or None.

    Bound now: nothing that is replaced later has a part in the look.
    """
    had, code, of_torch, named = _had, _code, _of_torch, _name
    every, each, same, code_of = all, map, operator.is_, operator.attrgetter("__code__")
    direct, other = _sorted(known)
    functions = [value for _, value, inner in known.values() if _plain(value, inner)]
    codes = [inner for _, value, inner in known.values() if _plain(value, inner)]

    def look() -> str | None:
        settled = every(each(same, each(code_of, functions), codes)) and every(
            every(each(same, each(get, names), values)) for get, names, values in direct
        )
        for (_, name), (owner, value, inner) in (other if settled else known).items():
            now = had(owner, name)
            unchanged = now is value and (inner is None or code(now) is inner)
            if not unchanged and not of_torch(now):
                return f"{named(owner)}.{name} is no longer the function that it was"
        return None

    return look


def _sorted(known: Known) -> tuple[list[_OfOne], Known]:
    """What owners have themselves, in lists that are quickly compared; and what they inherit.

    A look comes with every case of a verification, at thousands of functions.
    """
    found: dict[int, _OfOne] = {}
    other: Known = {}
    for (number, name), (owner, value, inner) in known.items():
        own = owner if isinstance(owner, dict) else vars(owner)
        # None is also what is no longer there
        if value is None or name not in own or not (inner is None or _plain(value, inner)):
            other[number, name] = (owner, value, inner)
        else:
            _, names, values = found.setdefault(number, (own.get, [], []))
            names.append(name)
            values.append(value)
    return list(found.values()), other


def _plain(value: object, code: object) -> bool:
    return code is not None and isinstance(value, FunctionType)


def _of_torch(function: object, *, folder: str = _TORCH) -> bool:
    """Whether torch itself put it there, which wraps functions of its own when dynamo is loaded."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(folder)


def put_back(known: Known) -> None:
    """Undo what was replaced."""
    for (_, name), (owner, value, code) in known.items():
        if isinstance(owner, dict):
            owner[name] = value
            continue
        if code is not None and _code(value) is not code:
            setattr(value, "__code__", code)  # noqa: B010 - whatever has one
        if _had(owner, name) is not value:
            with suppress(AttributeError, TypeError):
                setattr(owner, name, value)


def handlers() -> dict[int, interrupts.Handler]:
    """What happens at the signals by which people end processes."""
    return {number: interrupts.handler(number) for number in _SIGNALS}


def handled(known: dict[int, interrupts.Handler]) -> str | None:
    """The signal that is handled otherwise than it was, in words, or None."""
    for number, handler in known.items():
        if interrupts.handler(number) is not handler:
            return f"{signal.Signals(number).name} has another handler"
    return None


def _name(owner: object) -> str:
    if isinstance(owner, dict):
        return "sys.modules"
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}"
    return str(getattr(owner, "__name__", owner))

"""Functions that a comparison rests on, and whether they are still the ones that were there.

A subject shares its process with the comparison of its rows. One that puts something else in the
place of ``torch.equal`` or of a method of tensors would compare itself.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter, is_, itemgetter
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

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

_DEEPEST = 8
"""Wrappers of torch, one in another, that are looked through."""
_TORCH = f"{Path(str(torch.__file__)).parent}/"


class Owned(NamedTuple):
    """What an owner had by name, and the code of what has one."""

    owner: object
    values: dict[str, object]
    codes: dict[str, object]


Known = dict[int, Owned]
"""By the owner's identity."""


def functions() -> Known:
    """All functions and methods that count, as they are now."""
    found: Known = {}
    for owner in _owners():
        values = _values(owner)
        codes = {k: code for k, value in values.items() if (code := _code(value)) is not None}
        found[id(owner)] = Owned(owner, values, codes)
    modules: dict[str, object] = {k: v for k, v in list(sys.modules.items()) if _own(k)}
    return found | {id(sys.modules): Owned(sys.modules, modules, {})}


def _values(owner: object) -> dict[str, object]:
    if not isinstance(owner, type):
        left_out = [name for number, name in _OURS_TO_REPLACE if number == id(owner)]
        return {k: v for k, v in vars(owner).items() if callable(v) and k not in left_out}
    if owner in _TYPES:
        return {name: _had(owner, name) for name in dir(owner) if name not in _NO_FUNCTION}
    return {name: value for name, value in vars(owner).items() if name not in _NO_FUNCTION}


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


class WatchedFunctions(NamedTuple):
    """Functions, and the looks at them."""

    known: Known
    look: Callable[[], str | None]
    """What :func:`watching` gives."""
    same: Callable[[], bool]
    """Whether nothing is another one, and nothing came."""


_last: list[WatchedFunctions] = []


def watched() -> WatchedFunctions:
    """All functions that count, as they are now.

    Whoever verifies again and again in one process has those of the last time, if they are the same
    ones: to list them takes ten times as long as a look.
    """
    if not (_last and _last[0].same()):
        known = functions()
        places = [place for one in known.values() for place in _places(one.owner)]
        sizes, untouched = [*map(len, places)], _untouched(known)
        _last[:] = [
            WatchedFunctions(
                known,
                _watching(known, untouched),
                lambda: [*map(len, places)] == sizes and untouched(),
            )
        ]
    return _last[0]


def watching(known: Known) -> Callable[[], str | None]:
    """What finds the first function that is no longer what it was, in words, or None.

    Bound now: nothing that is replaced later has a part in the look.
    """
    return _watching(known, _untouched(known))


def _watching(known: Known, untouched: Callable[[], bool]) -> Callable[[], str | None]:
    had, code, under, named, wrapped = _had, _code, _under_torch, _name, _wrapped
    fast = [untouched]

    def look() -> str | None:
        if fast[-1]():
            return None
        for owner, values, codes in known.values():
            for name, value in values.items():
                now = had(owner, name)
                same = now is value or under(now, value) is value
                if not same or (name in codes and code(value) is not codes[name]):
                    return f"{named(owner)}.{name} is no longer the function that it was"
        fast[1:] = [wrapped(known)]
        return None

    return look


def _wrapped(known: Known) -> Callable[[], bool]:
    """Whether all is as it is now: what torch wrapped once would make every later look a long one.

    What lies under a wrapper is looked at, too. Asked right after a look at ``known`` found
    nothing: all that this calls is what it was.
    """
    now: Known = {}
    for key, (owner, values, _) in known.items():
        here = {name: _had(owner, name) for name in values}
        codes = {k: code for k, value in here.items() if (code := _code(value)) is not None}
        now[key] = Owned(owner, here, codes)
    return _untouched(now, [*known.values()])


def _untouched(known: Known, under: Sequence[Owned] = ()) -> Callable[[], bool]:
    """Whether all is as it was: a look at thousands of functions comes with every case.

    What stands where is compared in one go; and what is inherited must still not be hidden. The
    code of the functions in ``under`` counts, too, wherever they stand.
    """
    picked: list[tuple[itemgetter[tuple[object, ...]], Mapping[str, object]]] = []
    had: list[object] = []
    hidden: list[tuple[KeysView[str], frozenset[str]]] = []
    for owner, values, _ in known.values():
        rest = values
        for place in _places(owner):
            here = [name for name in rest if name in place]
            if here:  # one name twice: of two or more a getter makes a tuple
                names = (*here, here[0])
                picked.append((itemgetter(*names), place))
                had += map(rest.__getitem__, names)
            if len(here) == len(rest):
                break
            rest = {name: rest[name] for name in rest.keys() - here}
            hidden.append((place.keys(), frozenset(rest)))
    types = [one.owner for one in known.values() if isinstance(one.owner, type)]
    orders = [one.__mro__ for one in types]
    coded = [*known.values(), *under]
    functions = [one.values[name] for one in coded for name in one.codes]
    codes = [code for one in coded for code in one.codes.values()]
    every, each, same, joined = all, map, is_, chain.from_iterable
    code_of, order_of = attrgetter("__code__"), attrgetter("__mro__")
    gone = (KeyError, AttributeError)

    def untouched() -> bool:
        try:
            return (
                every(each(same, each(code_of, functions), codes))
                and every(each(same, each(order_of, types), orders))
                and every(own.isdisjoint(names) for own, names in hidden)
                and every(each(same, joined(pick(at) for pick, at in picked), had))
            )
        except gone:
            return False

    return untouched


def _places(owner: object) -> Iterator[Mapping[str, object]]:
    """Where what an owner has is looked up, in this order."""
    if isinstance(owner, dict):
        yield owner
    else:
        yield from map(vars, owner.__mro__ if isinstance(owner, type) else (owner,))


def _under_torch(function: object, value: object, *, folder: str = _TORCH) -> object:
    """What torch's wrappers hold: it wraps functions of its own when dynamo is loaded.

    It wraps those of others as readily (``torch.no_grad()``), which are found as such.
    """
    for _ in range(_DEEPEST):  # one may wrap itself
        code = getattr(function, "__code__", None)
        if function is value or code is None or not code.co_filename.startswith(folder):
            return function
        function = getattr(function, "__wrapped__", None)
    return None


def put_back(known: Known) -> None:
    """Undo what was replaced."""
    for owner, values, codes in known.values():
        for name, value in values.items():
            if isinstance(owner, dict):
                owner[name] = value
                continue
            if name in codes and _code(value) is not codes[name]:
                setattr(value, "__code__", codes[name])  # noqa: B010 - whatever has one
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

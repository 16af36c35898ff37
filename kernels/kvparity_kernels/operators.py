"""The operators of Triton's CPU interpreter without its type rules, where these decide nothing.

Two operands of one plain type have a result that numpy alone can give: the interpreter's own call
for it is some hundred calls of Python. Each function here gives the bits, the types and the shapes
of the one that it stands in for, and calls that one for whatever it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kvparity_kernels.fixed_arithmetic import Array

Call = Callable[..., Any]
Ufunc = Callable[[Any, Any], Array]

Types = dict[str, np.dtype[Any]]

FLOATS: Types = {"fp32": np.dtype(np.float32), "fp64": np.dtype(np.float64)}
INTEGERS: Types = {"int32": np.dtype(np.int32), "int64": np.dtype(np.int64)}
BOOLEANS: Types = {"int1": np.dtype(np.bool_)}
NUMBERS = FLOATS | INTEGERS
SMALLEST, LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # normal float32 without its sign


def _quotient(x: Array, y: Array) -> Array:
    """Towards zero, as the interpreter divides integers."""
    found: Array = (x - np.fmod(x, y)) // y
    return found


BINARY: dict[str, tuple[Ufunc, Types, bool]] = {
    "add": (np.add, NUMBERS, False),
    "sub": (np.subtract, NUMBERS, False),
    "mul": (np.multiply, NUMBERS, False),
    "truediv": (np.divide, FLOATS, False),
    "floordiv": (_quotient, INTEGERS, False),
    "mod": (np.fmod, INTEGERS, False),
    "and": (np.bitwise_and, INTEGERS | BOOLEANS, False),
    "or": (np.bitwise_or, INTEGERS | BOOLEANS, False),
    "lt": (np.less, NUMBERS, True),
    "le": (np.less_equal, NUMBERS, True),
    "gt": (np.greater, NUMBERS, True),
    "ge": (np.greater_equal, NUMBERS, True),
    "eq": (np.equal, NUMBERS, True),
    "ne": (np.not_equal, NUMBERS, True),
}
"""Operator: what numpy computes, the types it is asked for, whether the answer is yes or no."""


def number(value: Any, name: str) -> Array | None:
    """A number of Python as the interpreter would hold it beside the type ``name``.

    None where its type is not that one's for every Triton: then the rules are needed.
    """
    if type(value) is int and name in NUMBERS and -(2**31) <= value < 2**31:
        return np.array([value], NUMBERS[name])
    if type(value) is float and name == "fp32":
        size = abs(value)
        zero = value == 0 and math.copysign(1, value) > 0  # Triton 3.6 drops the sign of the other
        if zero or size == float("inf") or SMALLEST <= size <= LARGEST:
            return np.array([value], np.float32)
    return None


class Operators:
    """Stand-ins for what ``module``, Triton's interpreter, puts into its language at a launch."""

    def __init__(self, module: Any, semantic: Any) -> None:
        core = module.tl.core
        self.language, self.core, self.semantic = module.tl, core, semantic
        self.tensor, self.handle, self.constexpr = core.tensor, module.TensorHandle, core.constexpr
        self.block, self.pointer, self.truth = core.block_type, core.pointer_type, core.int1
        self.wide = core.int64
        self.facts: dict[Any, dict[str, Any]] = {}

    def instead(self, thing: Any, name: str, before: Any, after: Any) -> Any:
        """What stands for ``after``, by which the interpreter replaced ``before`` there."""
        passed = (getattr(after, "__kwdefaults__", None) or {}).get("member")
        function = getattr(before, "__wrapped__", None)
        if function is None or passed is not before:
            return after  # more than a builtin that is given what it needs
        return self.stand_in(thing, name, self._plain(function))

    def stand_in(self, thing: Any, name: str, plain: Call) -> Call:
        """What answers for ``plain``, or ``plain``."""
        if thing is self.tensor:
            if name == "__getitem__":
                return self._index(plain)
            kind = name.strip("_")
            if kind in BINARY:
                return self._binary(plain, *BINARY[kind], reflected=False)
            if kind[:1] == "r" and kind[1:] in BINARY:
                return self._binary(plain, *BINARY[kind[1:]], reflected=True)
        elif name == "where":
            return self._where(plain)
        return plain

    def _plain(self, function: Call) -> Call:
        semantic = self.semantic

        def call(*args: Any, **kwargs: Any) -> Any:
            kwargs["_semantic"] = semantic
            return function(*args, **kwargs)

        return call

    def _made(self, data: Array, held: Any, scalar: Any, block: bool) -> Any:
        """A tensor of the type ``scalar``, a block or not, whose handle says ``held``."""
        key = (scalar.name, getattr(scalar, "address_space", None), data.shape if block else None)
        handle = object.__new__(self.handle)  # which would ask whether numbers fit their type
        handle.data, handle.dtype, handle.attr = data, held, {}
        facts = self.facts.get(key)
        if facts is None:
            type_ = self.block(scalar, list(data.shape)) if block else scalar
            made = self.tensor(handle, type_)
            self.facts[key] = {name: it for name, it in vars(made).items() if name != "handle"}
            return made
        made = object.__new__(self.tensor)
        made.__dict__.update(facts)
        made.handle = handle
        return made

    def _binary(
        self,
        original: Call,
        function: Ufunc,
        types: Types,
        truth: bool,
        *,
        reflected: bool,
    ) -> Call:
        tensor, constexpr, block_type = self.tensor, self.constexpr, self.block
        shifts = function is np.add and not reflected

        def operator(it: Any, other: Any) -> Any:
            dtype = it.dtype
            kind = types.get(dtype.name)
            if kind is None:
                if shifts and dtype.__class__ is self.pointer and other.__class__ is tensor:
                    return self._shifted(original, it, other)
                return original(it, other)
            x, held, block = it.handle.data, it.handle.dtype, it.type.__class__ is block_type
            if other.__class__ is tensor and not reflected:
                y, block = other.handle.data, block or other.type.__class__ is block_type
                if (its := other.dtype.name) == dtype.name:
                    its_kind = kind
                elif its in INTEGERS and dtype.name in INTEGERS:  # one has 32 bits: it is widened
                    its_kind, held = INTEGERS[its], held if dtype.name == "int64" else self.wide
                    dtype = self.wide
                else:
                    return original(it, other)
            else:
                value = other.value if other.__class__ is constexpr else other
                y, its_kind = number(value, dtype.name), kind
                if y is None:
                    return original(it, other)
            if x.dtype is not kind or y.dtype is not its_kind:
                return original(it, other)
            try:
                data = function(y, x) if reflected else function(x, y)
            except ValueError:  # which says that the shapes do not fit
                return original(it, other)
            return self._made(data, held.scalar, self.truth if truth else dtype, block)

        return operator

    def _shifted(self, original: Call, pointer: Any, offset: Any) -> Any:
        """A pointer and a signed offset in elements."""
        x, y = pointer.handle.data, offset.handle.data
        block = self.block in (pointer.type.__class__, offset.type.__class__)
        if offset.dtype.name not in INTEGERS:
            return original(pointer, offset)
        size = max(1, pointer.handle.get_element_ty().primitive_bitwidth // 8)
        try:
            data = x + size * y.astype(np.uint64)
        except ValueError:
            return original(pointer, offset)
        return self._made(data, pointer.handle.dtype, pointer.dtype, block)

    def _index(self, original: Call) -> Call:
        """``x[:, None]``: a view with more axes."""
        whole = slice(None)

        def index(it: Any, slices: Any) -> Any:
            if slices.__class__ is tuple and it.type.__class__ is self.block:
                kept = [each for each in slices if each is not None]
                if len(kept) <= it.handle.data.ndim and all(
                    each.__class__ is slice and each == whole for each in kept
                ):
                    return self._made(
                        it.handle.data[slices], it.handle.dtype.scalar, it.dtype, True
                    )
            return original(it, slices)

        return index

    def _where(self, original: Call) -> Call:
        """Select between two of one type, or one and a number."""

        def where(condition: Any, x: Any, y: Any) -> Any:
            left, right = x.__class__ is self.tensor, y.__class__ is self.tensor
            if condition.__class__ is not self.tensor or not (left or right):
                return original(condition, x, y)
            dtype = x.dtype if left else y.dtype
            name = dtype.name
            tests = condition.handle.data
            a = x.handle.data if left else self._number(x, name)
            b = y.handle.data if right else self._number(y, name)
            if a is None or b is None or name not in NUMBERS or condition.dtype.name != "int1":
                return original(condition, x, y)
            kind = NUMBERS[name]
            if a.dtype is not kind or b.dtype is not kind:
                return original(condition, x, y)
            given = [each for each in (condition, x, y) if each.__class__ is self.tensor]
            block = any(each.type.__class__ is self.block for each in given)
            try:
                data = np.where(tests, a, b)
            except ValueError:
                return original(condition, x, y)
            return self._made(data, dtype, dtype, block)

        return where

    def _number(self, value: Any, name: str) -> Array | None:
        return number(value.value if value.__class__ is self.constexpr else value, name)

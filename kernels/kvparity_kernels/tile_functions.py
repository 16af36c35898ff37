"""Functions of Triton's language in its CPU interpreter without their rules, as ``operators`` has
the operators: what kernels ask for again and again, a load, a cast, a constant, a product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kvparity_kernels import fixed_arithmetic
from kvparity_kernels.fixed_arithmetic import Array
from kvparity_kernels.operators import NUMBERS, Call, Operators, Types
from kvparity_kernels.relied import triton as relied

CONSTANTS = frozenset({"arange", "full"})
LOADED: Types = NUMBERS | {
    **{"fp16": np.dtype(np.float16), "bf16": np.dtype(np.uint16)},
    **{"int8": np.dtype(np.int8), "uint8": np.dtype(np.uint8)},
}


def _astype(name: str) -> Call:
    return lambda data: data.astype(LOADED[name])


CASTS: dict[tuple[str, str], Call] = {
    ("fp32", "bf16"): fixed_arithmetic.float32_to_bfloat16,
    ("bf16", "fp32"): fixed_arithmetic.bfloat16_to_float32,
    **{
        pair: _astype(pair[1])
        for pair in (
            *(("fp32", "fp16"), ("fp16", "fp32"), ("int8", "fp32"), ("int32", "fp32")),
            *(("int32", "int64"), ("int64", "int32"), ("uint8", "int32")),
        )
    },
}


class TileFunctions(Operators):
    """And stand-ins for those functions."""

    def __init__(self, module: Any, semantic: Any) -> None:
        super().__init__(module, semantic)
        self.dtype = self.core.dtype
        self.read, self.ieee = relied.LOAD.find(), relied.IEEE.find()
        self.constants: dict[Any, Any] = {}
        self.fills: dict[Any, Array] = {}

    def stand_in(self, thing: Any, name: str, plain: Call) -> Call:
        """What answers for ``plain``, or ``plain``."""
        if thing is self.tensor:
            return self._to(plain) if name == "to" else super().stand_in(thing, name, plain)
        if thing not in (self.language, self.core, self.language.math):
            return plain  # a method of another class: a descriptor loads, too
        if name in CONSTANTS:
            return self._constant(name, plain)
        if name in relied.ELEMENTWISE:
            return self._elementwise(*relied.ELEMENTWISE[name], plain)
        if name == "load" and self.read is not None:
            return self._load(plain)
        if name == "dot" and self.ieee is not None:
            return self._dot(plain)
        return super().stand_in(thing, name, plain)

    def _value(self, it: Any) -> Any:
        return it.value if it.__class__ is self.constexpr else it

    def _blocks(self, given: tuple[Any, ...], names: tuple[str, ...]) -> bool:
        """Whether all are blocks whose data are of these types."""
        return all(
            it.__class__ is self.tensor
            and it.type.__class__ is self.block
            and it.dtype.name == name
            and it.handle.data.dtype is LOADED[name]
            for it, name in zip(given, names, strict=True)
        )

    def _constant(self, name: str, plain: Call) -> Call:
        """A block of the same numbers: its data are kept, which nothing may write to."""

        def constant(*args: Any, **more: Any) -> Any:
            key = None if more else self._key(args)
            if key is None:
                return plain(*args, **more)
            found = self.constants.get((name, key))
            if found is None:
                found = plain(*args)
                found.handle.data.setflags(write=False)
                self.constants[name, key] = found
            block = found.type.__class__ is self.block
            return self._made(found.handle.data, found.handle.dtype, found.dtype, block)

        return constant

    def _key(self, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """What tells constants apart, or None where one of these is none."""
        key: list[Any] = []
        for each in args:
            value = self._value(each)
            if value.__class__ in (int, float) and value == value:  # no NaN: it has more bits
                key.append((value.__class__, repr(value)))  # -0.0 is another one than 0.0
            elif value.__class__ is self.dtype:
                key.append(value.name)
            elif value.__class__ in (tuple, list):
                inner = self._key(tuple(value))
                if inner is None:
                    return None
                key.append(inner)
            else:
                return None
        return tuple(key)

    def _elementwise(self, create: str, operands: int, plain: Call) -> Call:
        """Of float32 blocks of one shape: ``create`` of the interpreter's builder is asked at once.

        Looked up at each call, because it may be one that was put there.
        """
        builder, names = self.semantic.builder, ("fp32",) * operands

        def elementwise(*given: Any, **more: Any) -> Any:
            if more or len(given) != operands or not self._blocks(given, names):
                return plain(*given, **more)
            handles = [it.handle for it in given]
            if len({handle.data.shape for handle in handles}) > 1:
                return plain(*given)
            found = getattr(builder, create)(*handles)
            return self._made(found.data, found.dtype, given[0].dtype, True)

        return elementwise

    def _to(self, plain: Call) -> Call:
        """Another type, or its own."""

        def to(it: Any, dtype: Any, *args: Any, **more: Any) -> Any:
            wanted, old = self._value(dtype), it.dtype.name
            if args or more or wanted.__class__ is not self.dtype:
                return plain(it, dtype, *args, **more)
            if old == wanted.name and old in LOADED:
                return it
            convert = CASTS.get((old, wanted.name))
            if convert is None or it.handle.data.dtype is not LOADED[old]:
                return plain(it, dtype)
            block = it.type.__class__ is self.block
            return self._made(convert(it.handle.data), wanted, wanted, block)

        return to

    def _load(self, plain: Call) -> Call:
        """From pointers, where a mask says so; elsewhere a number."""

        def load(pointer: Any, mask: Any = None, other: Any = None, *rest: Any, **more: Any) -> Any:
            element = getattr(getattr(pointer, "dtype", None), "element_ty", None)
            kind = LOADED.get(getattr(element, "name", ""))
            if rest or more or kind is None or (mask is None and other is not None):
                return plain(pointer, mask, other, *rest, **more)
            x, block = pointer.handle.data, pointer.type.__class__ is self.block
            tests = None
            if mask is not None:
                if (
                    mask.__class__ is not self.tensor
                    or mask.dtype.name != "int1"
                    or (mask.type.__class__ is self.block) != block
                ):
                    return plain(pointer, mask, other)
                tests = mask.handle.data
                if tests.shape != x.shape:
                    if tests.ndim != x.ndim:
                        return plain(pointer, mask, other)
                    try:
                        x, tests = np.broadcast_arrays(x, tests)
                    except ValueError:  # which says that the shapes do not fit
                        return plain(pointer, mask, other)
            fill = self._fill(other, element, x.shape)
            if fill is None:
                return plain(pointer, mask, other)
            if tests is None:
                tests = self._ones(x.shape)
            return self._made(self.read(x, tests, fill, kind), element, element, block)

        return load

    def _fill(self, other: Any, element: Any, shape: tuple[int, ...]) -> Array | None:
        """What stands where nothing is read: 0 if nothing is said; None where it is no number."""
        value = self._value(other)
        if value.__class__ not in (int, float, type(None)) or value != value:
            return None
        key = (repr(value), element.name, shape)
        found = self.fills.get(key)
        if found is None:
            scalar = 0
            if value is not None:
                semantic = self.semantic
                scalar = semantic.cast(semantic.to_tensor(value), element).handle.data[0]
            found = self.fills[key] = np.full(shape, scalar, LOADED[element.name])
        return found

    def _ones(self, shape: tuple[int, ...]) -> Array:
        found = self.fills.get(shape)
        if found is None:
            found = self.fills[shape] = np.ones(shape, np.bool_)
        return found

    def _dot(self, plain: Call) -> Call:
        """A product of two blocks that is added to a third one of float32."""
        builder, ieee = self.semantic.builder, self.ieee

        def dot(*given: Any, **more: Any) -> Any:
            if len(given) == 3 and more.keys() == {"input_precision"}:
                name = getattr(getattr(given[0], "dtype", None), "name", "")
                if (
                    self._value(more["input_precision"]) == "ieee"
                    and name in ("fp16", "bf16", "fp32")
                    and self._blocks(given, (name, name, "fp32"))
                ):
                    a, b, start = (it.handle for it in given)
                    x, y = a.data.shape, b.data.shape
                    if len(x) == len(y) == 2 and (x[1], x[0], y[1]) == (y[0], *start.data.shape):
                        found = builder.create_dot(a, b, start, ieee, 0)
                        return self._made(found.data, found.dtype, given[2].dtype, True)
            return plain(*given, **more)

        return dot

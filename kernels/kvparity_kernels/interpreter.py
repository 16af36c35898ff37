"""What Triton's CPU interpreter needs so that its results show the algorithm.

The interpreter's own ``tl.dot`` goes through BLAS (whose bits depend on the CPU, on the number of
rows and on a row's position); it computes with the bit patterns of bfloat16 as if they were
integers, which kernels of this project never ask for and those of others do; its conversion to
bfloat16 truncates; its sums follow the memory layout; and before 3.9 its fma rounds twice. The
hooks are private to Triton, so their shape is checked first: where it differs, nothing runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import triton.language as tl

from kvparity_kernels import device_model, fixed_arithmetic, interpreter_fastpath
from kvparity_kernels.relied import triton as relied
from kvparity_kernels.tensor_cores import UnmodelledError

_installed = False


def install() -> None:
    """Put the fixed-order arithmetic into Triton's interpreter; a second call does nothing.

    Raises:
        GoneError: this Triton's interpreter has not the hooks expected.
    """
    global _installed
    if _installed:
        return
    relied.check_hooks()
    relied.import_early()
    interpreter_fastpath.install()
    builder = relied.interpreter().InterpreterBuilder
    builder.create_dot = _dot
    if (scaled := relied.scaled_dot()) is not None:
        builder.create_dot_scaled = _unmodelled(scaled, "tl.dot_scaled")
    builder.cast_impl = _cast(builder.cast_impl)
    builder.create_fp_to_fp = _convert(builder.create_fp_to_fp)
    builder.create_fma = _of_numbers(_fma(builder.create_fma))
    builder.binary_op = _binary(builder.binary_op)
    builder.unary_op = _unary(builder.unary_op)
    if not hasattr(builder, "get_bf16"):  # before 3.9 it has no constants of bfloat16
        builder.get_bf16 = _constant
    reduces, scans = relied.interpreter().ReduceOps, relied.interpreter().ScanOps
    reduces.sum = _sum
    reduces.min_max = _min_max(reduces.min_max)
    scans.cumsum, scans.cumprod = _scan(scans.cumsum, np.add), _scan(scans.cumprod, np.multiply)
    _installed = True


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings for infinities and NaN: on a GPU they are values like any other."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's nanmax warns past errstate
        warnings.simplefilter("ignore", DeprecationWarning)  # Triton 3.6 turns arrays to scalars
        yield


def _handle(data: fixed_arithmetic.Array, dtype: Any) -> Any:
    return relied.interpreter().TensorHandle(data, dtype.scalar)


def _wide(data: fixed_arithmetic.Array, dtype: Any) -> fixed_arithmetic.Array:
    """The numbers that a handle means: bfloat16 and float8 are kept as integers."""
    scalar = dtype.scalar
    if scalar == tl.bfloat16:
        return fixed_arithmetic.bfloat16_to_float32(data)
    if scalar.name in fixed_arithmetic.FLOAT8:
        return fixed_arithmetic.float8_to_float32(data, scalar.name)
    if scalar.is_floating() and scalar.primitive_bitwidth == 8:
        raise NotImplementedError(f"kvparity's interpreter arithmetic does not know {scalar}")
    return data


def _dot(
    self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any
) -> Any:
    if d.data.dtype == np.float16 or d.dtype.scalar == tl.bfloat16:
        raise NotImplementedError("tl.dot accumulates in float32 here, not in a 16-bit float")
    operand = _operand(a.dtype.scalar, b.dtype.scalar, input_precision)
    found = device_model.dot(_wide(a.data, a.dtype), _wide(b.data, b.dtype), d.data, operand)
    return _handle(found, d.dtype)


def _unmodelled(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    """``original``, whose products have an order of their own, where no device is asked for."""

    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        if device_model.in_force() is not None:
            raise UnmodelledError(f"{name} on {device_model.in_force()} is not modelled")
        return original(self, *args, **kwargs)

    return create


_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}


def _operand(left: Any, right: Any, precision: Any) -> str:
    """The format of a product's operands as its instruction reads them.

    ``precision``: Triton's word for how float32 is read; products of other formats have it, too.
    """
    names = dict.fromkeys(_NAMES.get(each.name, each.name) for each in (left, right))
    if list(names) == ["float32"] and precision.name != "IEEE":
        return str(precision.name.lower())
    return " and ".join(names)


def _cast(original: Callable[..., Any]) -> Callable[..., Any]:
    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        old, new = src.dtype.scalar, dst_type.scalar
        if old == tl.bfloat16:  # and new another type: a cast to its own is none
            data = fixed_arithmetic.bfloat16_to_float32(src.data)
            return original(self, _handle(data, tl.float32), dst_type)
        if new == tl.bfloat16:
            return _handle(fixed_arithmetic.float32_to_bfloat16(src.data.astype(np.float32)), new)
        return original(self, src, dst_type)

    return cast_impl


def _convert(original: Callable[..., Any]) -> Callable[..., Any]:
    nearest = (None, relied.NEAREST.get())

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        old, new = src.dtype.scalar, dst_type.scalar
        if rounding_mode not in nearest:
            return original(self, src, dst_type, rounding_mode)
        wide = _wide(src.data, old)
        if new == tl.bfloat16:
            return _handle(fixed_arithmetic.float32_to_bfloat16(wide), new)
        if new.name in fixed_arithmetic.FLOAT8:
            return _handle(fixed_arithmetic.float32_to_float8(wide, new.name), new)
        if new in (tl.float16, tl.float32, tl.float64):
            return _handle(wide.astype(f"float{new.primitive_bitwidth}"), new)
        return original(self, src, dst_type, rounding_mode)

    return create_fp_to_fp


def _binary(original: Callable[..., Any]) -> Callable[..., Any]:
    """An operation on numbers, whatever they are kept as; its result is rounded to their format.

    As a device computes it: of bfloat16's sums, products and quotients the rounding to float32
    before changes nothing, because that has more than twice as many bits.
    """

    def binary_op(self: Any, lhs: Any, rhs: Any, op: Any) -> Any:
        dtype = lhs.dtype.scalar
        if dtype != tl.bfloat16:
            return original(self, lhs, rhs, op)
        x, y = (_handle(_wide(each.data, each.dtype), tl.float32) for each in (lhs, rhs))
        return _narrow(original(self, x, y, op).data)

    return binary_op


def _unary(original: Callable[..., Any]) -> Callable[..., Any]:
    def unary_op(self: Any, arg: Any, op: Any) -> Any:
        if arg.dtype.scalar != tl.bfloat16:
            return original(self, arg, op)
        wide = _handle(_wide(arg.data, arg.dtype), tl.float32)
        return _narrow(original(self, wide, op).data)

    return unary_op


def _constant(self: Any, value: float) -> Any:
    return self.create_fp_trunc(self.get_fp32(value), tl.bfloat16)


def _narrow(data: fixed_arithmetic.Array) -> Any:
    if data.dtype == np.bool_:  # a comparison: further operations on it are those of truths
        return _handle(data, tl.int1)
    return _handle(fixed_arithmetic.float32_to_bfloat16(data), tl.bfloat16)


def _min_max(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of bfloat16 the numbers, not their bit patterns, of which a negative one is the greater."""

    def min_max(self: Any, input: Any, val_reduce_op: Any, idx_reduce_op: Any = None) -> Any:
        given = input[0] if isinstance(input, tuple) else input
        if given.dtype.scalar != tl.bfloat16:
            return original(self, input, val_reduce_op, idx_reduce_op)
        wide = self.to_tensor(_wide(given.handle.data, given.dtype), tl.float32)
        found = original(self, wide, val_reduce_op, idx_reduce_op)
        if isinstance(found, tuple):
            return (_narrowed(found[0]), *found[1:])
        return _narrowed(found) if val_reduce_op else found

    return min_max


def _narrowed(x: Any) -> Any:
    shape = list(x.type.shape) if x.type.is_block() else None
    kind = tl.bfloat16 if shape is None else tl.block_type(tl.bfloat16, shape)
    return tl.tensor(_narrow(x.handle.data), kind)


def _scan(original: Callable[..., Any], op: np.ufunc) -> Callable[..., Any]:
    """Of bfloat16 one number after the other, each result rounded."""

    def scan(self: Any, input: Any) -> Any:
        if input.dtype.scalar != tl.bfloat16:
            return original(self, input)
        rows = np.moveaxis(_wide(input.handle.data, input.dtype), self.axis, 0).copy()
        for i in range(1, len(rows)):
            total = fixed_arithmetic.float32_to_bfloat16(op(rows[i - 1 : i], rows[i : i + 1]))
            rows[i : i + 1] = fixed_arithmetic.bfloat16_to_float32(total)
        data = np.ascontiguousarray(np.moveaxis(rows, 0, self.axis))
        return [self.to_tensor(fixed_arithmetic.float32_to_bfloat16(data), input.dtype)]

    return scan


def _fma(original: Callable[..., Any]) -> Callable[..., Any]:
    if relied.has_fma():
        return original  # Triton 3.9; 3.6 multiplies, rounds, and adds

    def create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        if z.data.dtype == np.float32:
            return _handle(fixed_arithmetic.fma(x.data, y.data, z.data), z.dtype)
        return original(self, x, y, z)

    return create_fma


def _of_numbers(original: Callable[..., Any]) -> Callable[..., Any]:
    def create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        if z.dtype.scalar == tl.bfloat16:
            raise NotImplementedError("tl.fma of bfloat16 is not known here; cast to float32 first")
        return original(self, x, y, z)

    return create_fma


def _sum(self: Any, input: Any) -> Any:
    narrow = input.dtype.scalar == tl.bfloat16
    data = _wide(input.handle.data, input.dtype) if narrow else input.handle.data
    axis = self.axis
    if axis is None:
        total = fixed_arithmetic.tree_sum(data.reshape(-1), 0, bfloat16=narrow)
        total = total.reshape((1,) * data.ndim) if self.keep_dims else total
    else:
        total = device_model.row_sum(data, axis, bfloat16=narrow)
        total = np.expand_dims(total, axis) if self.keep_dims else total
    if narrow:
        total = fixed_arithmetic.float32_to_bfloat16(total)
    return self.to_tensor(total, input.dtype)

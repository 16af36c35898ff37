"""Arithmetic in a fixed order, in numpy: what the interpreter is made to compute with.

Each function gives the same bits on every CPU: no BLAS, no pairwise summation whose shape depends
on the memory layout, no conversion that depends on a library's build.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def dot(a: Array, b: Array, start: Array) -> Array:
    """``start + a @ b`` for ``[..., M, K]`` and ``[..., K, N]``, k ascending.

    Every product and every sum is rounded once, to the dtype of ``start``. A row of the result
    depends on nothing but its own row of ``a`` and ``start``, wherever it stands.
    """
    out = np.array(start, order="C")
    columns, rows = (a.T, b) if a.ndim == 2 else (np.moveaxis(a, -1, 0), np.moveaxis(b, -2, 0))
    left = np.ascontiguousarray(columns, dtype=out.dtype)[..., :, None]
    right = np.ascontiguousarray(rows, dtype=out.dtype)[..., None, :]
    steps = max(1, ELEMENTS // max(1, out.size))
    for k in range(0, len(left), steps):
        for term in left[k : k + steps] * right[k : k + steps]:
            np.add(out, term, out=out)
    return out


def fma_dot(a: Array, b: Array, start: Array) -> Array:
    """``start + a @ b`` as :func:`dot`, of float32, each product added by one fused multiply-add.

    In float64 the product is exact, and rounding its sum twice is right but where the first
    rounding cuts something off and lands halfway between two float32 numbers, or among those below
    the least normal one. Steps of which one does so are computed by :func:`fma`.
    """
    left = np.ascontiguousarray(np.moveaxis(a, -1, 0), np.float64)[..., :, None]
    right = np.ascontiguousarray(np.moveaxis(b, -2, 0), np.float64)[..., None, :]
    out = np.array(start, np.float32, order="C")
    steps = max(1, min(_STEPS, ELEMENTS // max(1, out.size)))
    with np.errstate(invalid="ignore", over="ignore"):  # infinities and NaN are values here
        for k in range(0, len(left), steps):
            x, y = left[k : k + steps], right[k : k + steps]
            products = x * y
            totals, before, wide = np.empty_like(products), out, out.astype(np.float64)
            for product, total in zip(products, totals, strict=True):
                np.add(product, wide, out=total)
                out = total.astype(np.float32)
                np.copyto(wide, out)
            if _rounds_badly(products, totals, before):
                out = before
                for row, column in zip(x, y, strict=True):
                    out = fma(row, column, out)
    return out


_STEPS = 16
ELEMENTS = 1 << 14
"""At most so many steps, and float64 numbers, at once. For speed alone: more of them are more
memory than an allocator keeps, and each page of it is fetched anew."""


def _rounds_badly(products: Array, totals: Array, start: Array) -> bool:
    """Whether rounding some of ``totals`` to float32 may differ from rounding the exact sum."""
    halfway = (totals.view(np.int64) & 0x1FFFFFFF) == 0x10000000
    small = (np.abs(totals) < 2.0**-126) & (totals != 0)
    if not halfway.any() and not small.any():
        return False
    added = np.concatenate([start[None], totals[:-1].astype(np.float32)]).astype(np.float64)
    part = totals - products
    error = (products - (totals - part)) + (added - part)
    return bool(((halfway | small) & (error != 0)).any())


def fma(x: Array, y: Array, z: Array) -> Array:
    """``x * y + z`` of float32 with one rounding.

    The product is exact in float64. Its sum with z is rounded to odd (towards the error, where the
    last bit is even), so that rounding again to float32 is right (Boldo and Melquiond, 2008).
    """
    product = np.asarray(x, np.float64) * y
    wide = np.asarray(z, np.float64)
    total = np.asarray(product + wide)
    part = total - product
    error = (product - (total - part)) + (wide - part)
    bits = total.view(np.int64)
    inexact = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
    away = (error > 0) == (total > 0)
    odd = (bits + np.where(inexact, np.where(away, 1, -1), 0)).view(np.float64)
    return odd.astype(np.float32)


def tree_sum(x: Array, axis: int, *, bfloat16: bool = False) -> Array:
    """The sum over one axis as a halving tree: ``x[:h] + x[h:]`` until one is left.

    ``bfloat16``: x are float32 of such numbers, and each addition is rounded to one.
    """
    if x.dtype == np.bool_:
        x = x.astype(np.int64)  # numpy adds booleans as "or"
    before: Any = (slice(None),) * (axis % x.ndim)
    while (size := x.shape[axis]) > 1:
        half = (size + 1) // 2
        if size % 2 == 0:
            x = x[(*before, slice(half))] + x[(*before, slice(half, None))]
        else:
            head = x[(*before, slice(half))].copy()
            head[(*before, slice(half - 1))] += x[(*before, slice(half, None))]
            x = head
        x = bfloat16_to_float32(float32_to_bfloat16(x)) if bfloat16 else x
    return np.asarray(x.take(0, axis=axis))  # ascontiguousarray would give a scalar a dimension


def bfloat16_to_float32(bits: Array) -> Array:
    """Bit patterns (uint16) to float32; exact."""
    wide = bits.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def float32_to_bfloat16(x: Array) -> Array:
    """Float32 to bit patterns (uint16), to nearest, ties to even; NaN becomes 0x7FC0."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    bits = x.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits  # carries run into the exponent and on to infinity, as they must
    rounded >>= np.uint32(16)
    out = rounded.astype(np.uint16)
    nan = np.isnan(x)
    if nan.any():
        out[nan] = 0x7FC0
    return out


def _table(mantissa: int, bias: int) -> Array:
    """All 256 values of an 8-bit float as float32, as if no pattern were special."""
    code = np.arange(256)
    exponent = (code & 0x7F) >> mantissa
    fraction = (code & ((1 << mantissa) - 1)) / (1 << mantissa)
    size = np.where(
        exponent == 0, np.ldexp(fraction, 1 - bias), np.ldexp(1 + fraction, exponent - bias)
    )
    return np.where(code & 0x80, -size, size).astype(np.float32)


def _float8() -> dict[str, tuple[Array, int]]:
    e4 = _table(3, 7)
    e4[[0x7F, 0xFF]] = np.nan
    e5 = _table(2, 15)
    e5[[0x7C, 0xFC]] = np.inf, -np.inf
    e5[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return {"fp8e4nv": (e4, 0x7E), "fp8e5": (e5, 0x7B)}  # values, largest finite code


FLOAT8 = _float8()


def float8_to_float32(codes: Array, kind: str) -> Array:
    """Bit patterns (uint8) of ``fp8e4nv`` (e4m3fn) or ``fp8e5`` (e5m2) to float32; exact."""
    return FLOAT8[kind][0][codes]


def float32_to_float8(x: Array, kind: str) -> Array:
    """Float32 to bit patterns (uint8), to nearest, ties to even.

    Beyond the largest finite value the result saturates, as ``cvt.rn.satfinite`` does on NVIDIA
    GPUs (torch gives NaN or infinity there); NaN becomes 0x7F.
    """
    values, largest = FLOAT8[kind]
    finite = values[: largest + 1].astype(np.float64)
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        size = np.minimum(np.abs(np.asarray(x, dtype=np.float64)), finite[-1])
    low = np.clip(np.searchsorted(finite, size, side="right") - 1, 0, largest - 1)
    middle = (finite[low] + finite[low + 1]) / 2
    up = (size > middle) | ((size == middle) & (low % 2 == 1))
    code = (low + up).astype(np.uint8) | (np.signbit(x).astype(np.uint8) << 7)
    return np.where(np.isnan(x), np.uint8(0x7F), code).astype(np.uint8)
